use super::*;

const GITHUB: Scheme<'_> = Scheme::Hmac { header: "x-hub-signature-256", prefix: "sha256=", encoding: Encoding::Hex };
const GITEA: Scheme<'_> = Scheme::Hmac { header: "x-gitea-signature", prefix: "", encoding: Encoding::Hex };
const GITLAB: Scheme<'_> = Scheme::Token { header: "x-gitlab-token" };
const NOW: i64 = 1_649_367_553;

/// GitHub's own example: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const HEX: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
/// RFC 4231, test case 2.
const RFC: (&str, &str, &str) =
    ("Jefe", "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
/// The example of Standard Webhooks.
const WHSEC: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const MESSAGE: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const USER: &str = r#"{"email":"test@example.com","username":"test_user"}"#;
const STANDARD_V1: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

struct Sent(Vec<(&'static str, String)>);

impl Headers for Sent {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        self.0.iter().filter(|(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_bytes()).collect()
    }
}

fn sent(headers: &[(&'static str, &str)]) -> Sent {
    Sent(headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn standard(timestamp: i64, signature: &str) -> Sent {
    sent(&[("webhook-id", MESSAGE), ("webhook-timestamp", &timestamp.to_string()), ("webhook-signature", signature)])
}

fn passes(scheme: Scheme<'_>, headers: &Sent, body: &str, secrets: &[&str]) -> Result<bool, SecretProblem> {
    let secrets: Vec<&[u8]> = secrets.iter().map(|secret| secret.as_bytes()).collect();
    verify(scheme, headers, body.as_bytes(), &secrets, NOW)
}

#[test]
fn what_was_signed_with_the_secret_passes() {
    let github = sent(&[("X-Hub-Signature-256", &format!("sha256={HEX}"))]);
    let upper = sent(&[("X-Hub-Signature-256", &format!("sha256={}", HEX.to_uppercase()))]);
    let gitea = sent(&[("X-Gitea-Signature", RFC.2)]);
    let base64 = Scheme::Hmac { header: "X-Sum", prefix: "v0:", encoding: Encoding::Base64 };
    let base64_sent = sent(&[("X-Sum", &format!("v0:{}", BASE64.encode(hex::decode(HEX).unwrap())))]);
    let token = sent(&[("X-Gitlab-Token", SECRET)]);
    let v1 = standard(NOW, STANDARD_V1);
    let both = standard(NOW, &format!("v1,{} v1a,x {STANDARD_V1}", BASE64.encode([7; 32])));
    for (what, scheme, headers, body, secrets) in [
        ("GitHub's example", GITHUB, &github, BODY, &[SECRET][..]),
        ("hexadecimal in capitals", GITHUB, &upper, BODY, &[SECRET]),
        ("RFC 4231", GITEA, &gitea, RFC.1, &[RFC.0]),
        ("base64", base64, &base64_sent, BODY, &[SECRET]),
        ("a token", GITLAB, &token, BODY, &[SECRET]),
        ("Standard Webhooks", Scheme::Standard, &v1, USER, &[WHSEC]),
        ("without its prefix", Scheme::Standard, &v1, USER, &[&WHSEC[6..]]),
        ("one of several signatures", Scheme::Standard, &both, USER, &[WHSEC]),
        ("GitLab with a secret of Standard Webhooks", GITLAB, &v1, USER, &[WHSEC]),
        ("the secret that was used before", GITHUB, &github, BODY, &["another", SECRET]),
        ("a token that was used before", GITLAB, &token, BODY, &["another", SECRET]),
        ("Standard Webhooks with the one before", Scheme::Standard, &v1, USER, &["whsec_YW5vdGhlcg==", WHSEC]),
    ] {
        assert_eq!(passes(scheme, headers, body, secrets), Ok(true), "{what}");
    }
    for age in [-300, 300] {
        let v1 = sign(WHSEC.as_bytes(), MESSAGE, NOW + age, USER.as_bytes()).unwrap();
        assert_eq!(passes(Scheme::Standard, &standard(NOW + age, &v1), USER, &[WHSEC]), Ok(true), "{age} s");
    }
}

#[test]
fn everything_else_does_not() {
    let one = |value: &str| sent(&[("X-Hub-Signature-256", value)]);
    let right = format!("sha256={HEX}");
    // Of GitHub's example by SHA-1, which its older header holds.
    let sha1 = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";
    for (what, headers, body, secret) in [
        ("no header", sent(&[]), BODY, SECRET),
        ("an empty header", one(""), BODY, SECRET),
        ("an empty signature", one("sha256="), BODY, SECRET),
        ("no prefix", one(HEX), BODY, SECRET),
        ("63 digits", one(&right[..right.len() - 1]), BODY, SECRET),
        ("65 digits", one(&format!("{right}0")), BODY, SECRET),
        ("66 digits", one(&format!("{right}00")), BODY, SECRET),
        ("no digits", one(&format!("sha256={}", "z".repeat(64))), BODY, SECRET),
        ("a signature by SHA-1", one(sha1), BODY, SECRET),
        ("SHA-1 in its own header", sent(&[("X-Hub-Signature", sha1)]), BODY, SECRET),
        (
            "two headers, both right",
            sent(&[("X-Hub-Signature-256", &right), ("x-hub-signature-256", &right)]),
            BODY,
            SECRET,
        ),
        ("two in one header", one(&format!("{right},{right}")), BODY, SECRET),
        ("one more line break", one(&right), "Hello, World!\n", SECRET),
        ("another hook's secret", one(&right), BODY, "of another hook"),
        ("another provider's header", sent(&[("X-Gitea-Signature", HEX)]), BODY, SECRET),
    ] {
        assert_eq!(passes(GITHUB, &headers, body, &[secret]), Ok(false), "{what}");
    }
    for age in [-301, 301] {
        let v1 = sign(WHSEC.as_bytes(), MESSAGE, NOW + age, USER.as_bytes()).unwrap();
        assert_eq!(passes(Scheme::Standard, &standard(NOW + age, &v1), USER, &[WHSEC]), Ok(false), "{age} s");
    }
    for (what, headers, body) in [
        (
            "JSON that was written anew",
            standard(NOW, STANDARD_V1),
            r#"{"email": "test@example.com","username":"test_user"}"#,
        ),
        ("another time than was signed", standard(NOW + 1, STANDARD_V1), USER),
        ("no version", standard(NOW, &STANDARD_V1[3..]), USER),
        ("a version we don't know", standard(NOW, &STANDARD_V1.replace("v1,", "v2,")), USER),
        ("nothing behind the version", standard(NOW, "v1,"), USER),
        ("no id", sent(&[("webhook-timestamp", "1649367553"), ("webhook-signature", STANDARD_V1)]), USER),
        ("no time", sent(&[("webhook-id", MESSAGE), ("webhook-signature", STANDARD_V1)]), USER),
        (
            "a time that is no number",
            sent(&[("webhook-id", MESSAGE), ("webhook-timestamp", "now"), ("webhook-signature", STANDARD_V1)]),
            USER,
        ),
    ] {
        assert_eq!(passes(Scheme::Standard, &headers, body, &[WHSEC]), Ok(false), "{what}");
    }
}

#[test]
fn a_secret_of_standard_webhooks_is_never_taken_as_a_token() {
    let token = sent(&[("X-Gitlab-Token", WHSEC)]);
    assert_eq!(passes(GITLAB, &token, USER, &[WHSEC]), Ok(false));
    assert_eq!(passes(GITLAB, &token, USER, &["plain", WHSEC]), Ok(false), "nor where a token has replaced it");
    // Nor does a token sign by Standard Webhooks.
    let v1 = standard(NOW, &sign(b"d2VsbA==", MESSAGE, NOW, USER.as_bytes()).unwrap());
    assert_eq!(passes(GITLAB, &v1, USER, &["d2VsbA=="]), Ok(false));
}

#[test]
fn a_secret_that_cannot_be_used_refuses_only_what_no_other_has_signed() {
    let token = sent(&[("X-Gitlab-Token", SECRET)]);
    for secrets in [[SECRET, "whsec_%"], ["whsec_%", SECRET]] {
        assert_eq!(passes(GITLAB, &token, USER, &secrets), Ok(true), "{secrets:?}");
        let other = sent(&[("X-Gitlab-Token", "d2VsbA==")]);
        assert_eq!(passes(GITLAB, &other, USER, &secrets), Err(SecretProblem::Encoding), "{secrets:?}");
    }
}

#[test]
fn a_token_can_give_way_to_a_secret_of_standard_webhooks_and_back_without_a_delivery_lost() {
    let token = sent(&[("X-Gitlab-Token", SECRET)]);
    let v1 = standard(NOW, STANDARD_V1);
    for secrets in [[WHSEC, SECRET], [SECRET, WHSEC]] {
        for (what, headers) in [("a token", &token), ("a signature", &v1)] {
            assert_eq!(passes(GITLAB, headers, USER, &secrets), Ok(true), "{what}, {secrets:?}");
        }
    }
}

#[test]
fn a_secret_that_can_not_be_used_is_an_error() {
    let empty = sent(&[("X-Gitlab-Token", "")]);
    for scheme in [GITHUB, GITLAB, Scheme::Standard] {
        for secrets in [&[""][..], &[SECRET, ""]] {
            assert_eq!(passes(scheme, &empty, BODY, secrets), Err(SecretProblem::Empty), "{scheme:?}");
        }
    }
    let v1 = standard(NOW, STANDARD_V1);
    assert_eq!(passes(Scheme::Standard, &v1, USER, &["whsec_"]), Err(SecretProblem::Empty));
    assert_eq!(passes(Scheme::Standard, &v1, USER, &["whsec_ no base64"]), Err(SecretProblem::Encoding));
    assert_eq!(passes(GITLAB, &v1, USER, &["whsec_ no base64"]), Err(SecretProblem::Encoding));
}

#[test]
fn without_a_secret_nothing_passes() {
    assert_eq!(passes(GITLAB, &sent(&[("X-Gitlab-Token", "")]), BODY, &[]), Ok(false));
}

#[test]
fn what_we_sign_is_what_others_verify() {
    assert_eq!(sign(WHSEC.as_bytes(), MESSAGE, NOW, USER.as_bytes()).unwrap(), STANDARD_V1);
    let long = "k".repeat(100);
    let long_key = format!("whsec_{}", BASE64.encode(&long));
    let signature = sign(long_key.as_bytes(), MESSAGE, NOW, USER.as_bytes()).unwrap();
    assert_eq!(passes(Scheme::Standard, &standard(NOW, &signature), USER, &[&long_key]), Ok(true));
}
