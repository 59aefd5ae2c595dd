//! What a build prints is stored as it was printed, whatever it is: only NUL, which Postgres can't hold,
//! and bytes that are no UTF-8 become U+FFFD, and a line longer than the runtime keeps in one piece is
//! cut, with a mark where it goes on.

use futures::AsyncReadExt;
use image_factory_core::pod::{GOES_ON, MAX_LINE_BYTES};
use kube::{ResourceExt, api::LogParams};

use super::{
    rows,
    tenant::{Tenant, phase, status, tenant},
};

/// Bytes of the long line.
const LONG: usize = 40 * 1024;

/// Said in the shell's own escapes, so that the instruction, which is printed too, holds none of it.
fn dockerfile() -> String {
    format!(
        "FROM BASE\n\
         RUN printf 'nul-a\\000b\\n' && printf 'high-\\377\\n' && printf 'ansi-\\033[1;31mred\\033[0m\\n' \
         && {{ printf 'long-'; head -c {LONG} /dev/zero | tr '\\000' x; printf '\\nafter\\n'; }}\n"
    )
}

/// The log of a container in bytes: not all of it is text.
async fn printed(tenant: &Tenant, pod: &str, container: &str) -> Vec<u8> {
    let params = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
    let mut stream = Box::pin(tenant.pods().log_stream(pod, &params).await.expect("the log can be read"));
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("it can be read to its end");
    bytes
}

#[tokio::test]
async fn nul_broken_text_colours_and_a_line_of_forty_kibibytes_are_stored_as_they_were_printed() {
    tenant("odd-output", "privileged", async |tenant| {
        for method in ["buildx", "container"] {
            tenant.apply(&tenant.manifest(method, method, &dockerfile())).await;
        }
        for method in ["buildx", "container"] {
            let build = tenant.finished(method, 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
            let id = rows::id(&tenant.attempts(&build).await[0]);
            let log = rows::log(&tenant.pool, id).await;
            // buildx puts the number of the step and the time before what is printed.
            for line in ["nul-a\u{fffd}b", "high-\u{fffd}", "ansi-\u{1b}[1;31mred\u{1b}[0m", "after"] {
                let found = log.iter().filter(|stored| stored.ends_with(line)).count();
                assert_eq!(found, 1, "{method}: {line:?} in {log:#?}");
            }
            assert!(log.iter().all(|line| line.len() <= MAX_LINE_BYTES), "{method}: no row is longer than it may be");
            let long = long_line(&log);
            assert!(long.len() > 2, "{method}: it was cut");
            let whole: String = long.iter().map(|piece| piece.strip_suffix(GOES_ON).unwrap_or(piece)).collect();
            let (_, xs) = whole.split_once("long-").expect("it has its beginning");
            assert_eq!((xs.len(), xs.chars().all(|one| one == 'x')), (LONG, true), "{method}: {xs}");

            let pod = tenant.pods_of(id).await[0].name_any();
            let mut bytes = printed(tenant, &pod, "prepare").await;
            bytes.extend(printed(tenant, &pod, "build").await);
            assert!(bytes.contains(&0) && bytes.contains(&0xff), "{method}: it was printed raw");
            let text = String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
            assert_eq!(log.join("\n"), text.trim_end_matches('\n'), "{method}");
            let lost = log.iter().any(|line| line.contains("of this log were lost"));
            assert!(!lost, "{method}: {log:#?}");
        }
    })
    .await;
}

/// The rows of the long line: from its beginning to the first that does not go on.
fn long_line(log: &[String]) -> &[String] {
    // The instruction is printed too.
    let begins = log.iter().position(|line| line.contains("long-xxx")).expect("it is there");
    let pieces = log[begins..].iter().take_while(|line| line.ends_with(GOES_ON)).count();
    &log[begins..=begins + pieces]
}
