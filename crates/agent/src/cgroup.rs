//! What the container has used, read from its own control group at the end: peak memory, processor time, disk traffic.
//! Both versions of the interface are read. A number the kernel doesn't offer is absent, never zero or guessed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Nothing read here is longer; a cap on every read all the same.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_peak_bytes: Option<u64>,
    pub cpu_microseconds: Option<u64>,
    pub disk_read_bytes: Option<u64>,
    pub disk_write_bytes: Option<u64>,
}

/// `root` is where control groups are mounted, `membership` the text of `/proc/self/cgroup`.
pub fn usage(root: &Path, membership: &str) -> Usage {
    if root.join("cgroup.controllers").exists() {
        let folder = own_folder(root, membership_path(membership, ""));
        let file = |name: &str| read(&folder.join(name));
        let disk = file("io.stat").map(|text| io_stat(&text));
        Usage {
            memory_peak_bytes: file("memory.peak").and_then(|text| number(&text)),
            cpu_microseconds: file("cpu.stat").and_then(|text| cpu_stat(&text)),
            disk_read_bytes: disk.map(|(read, _)| read),
            disk_write_bytes: disk.map(|(_, written)| written),
        }
    } else {
        let file = |controller: &str, name: &str| {
            // Controllers are mounted alone or in pairs, `cpu,cpuacct` by custom.
            let mounts = [controller.to_owned(), format!("cpu,{controller}"), format!("{controller},cpu")];
            let mount = mounts.iter().map(|mount| root.join(mount)).find(|mount| mount.is_dir())?;
            read(&own_folder(&mount, membership_path(membership, controller)).join(name))
        };
        let disk = file("blkio", "blkio.throttle.io_service_bytes").map(|text| io_service_bytes(&text));
        Usage {
            memory_peak_bytes: file("memory", "memory.max_usage_in_bytes").and_then(|text| number(&text)),
            cpu_microseconds: file("cpuacct", "cpuacct.usage")
                .and_then(|text| number(&text))
                .map(|nanoseconds| nanoseconds / 1_000),
            disk_read_bytes: disk.map(|(read, _)| read),
            disk_write_bytes: disk.map(|(_, written)| written),
        }
    }
}

/// A container usually sees its own group mounted as the root; one that shares the host's namespace sees the whole tree
/// and finds its group under the path it is a member of.
fn own_folder(mount: &Path, membership: Option<&str>) -> PathBuf {
    let inner =
        membership.map(|path| path.trim_start_matches('/')).filter(|path| !path.split('/').any(|part| part == ".."));
    inner.map(|path| mount.join(path)).filter(|folder| folder.is_dir()).unwrap_or_else(|| mount.to_owned())
}

/// The path of `/proc/self/cgroup` for a controller; version 2 has one line, whose controller is empty.
fn membership_path<'a>(membership: &'a str, controller: &str) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `usage_usec 1234` among other lines.
fn cpu_stat(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(number)
}

/// `8:0 rbytes=1 wbytes=2 rios=3 ...`, a line a device. Read and written, summed.
fn io_stat(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|field| field.strip_prefix(key))
            .filter_map(number)
            .fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `8:0 Read 1`, `8:0 Write 2`, ..., `Total 3`: a line a device and operation. Read and written, summed.
fn io_service_bytes(text: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        text.lines()
            .filter_map(|line| line.split_once(' ')?.1.strip_prefix(operation)?.strip_prefix(' '))
            .filter_map(number)
            .fold(0, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const V1_MEMBERSHIP: &str = "5:memory:/kubepods/pod1/c1\n4:blkio:/kubepods/pod1/c1\n3:cpu,cpuacct:/kubepods/pod1/c1\n1:name=systemd:/x\n0::/y\n";

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("agent-cgroup-{name}-{}", std::process::id()));
            for (path, text) in files {
                let file = root.join(path);
                fs::create_dir_all(file.parent().expect("has a parent")).expect("creates");
                fs::write(file, text).expect("writes");
            }
            Self(root)
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn numbers_are_found_among_the_lines() {
        assert_eq!(cpu_stat("usage_usec 5170\nuser_usec 4000\nsystem_usec 1170\n"), Some(5_170));
        assert_eq!(cpu_stat("user_usec 4000\n"), None);
        assert_eq!(io_stat(""), (0, 0));
        assert_eq!(
            io_stat("8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=9 dios=0\n253:0 rbytes=1 wbytes=2\n"),
            (101, 202)
        );
        assert_eq!(
            io_service_bytes("8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n"),
            (11, 22)
        );
        assert_eq!(io_service_bytes("Total 0\n"), (0, 0));
        assert_eq!(number("max\n"), None);
    }

    #[test]
    fn membership_is_read_for_both_versions() {
        assert_eq!(membership_path(V1_MEMBERSHIP, "cpuacct"), Some("/kubepods/pod1/c1"));
        assert_eq!(membership_path(V1_MEMBERSHIP, "pids"), None);
        assert_eq!(membership_path("0::/kubepods.slice/pod1\n", ""), Some("/kubepods.slice/pod1"));
    }

    #[test]
    fn version_2_is_read_at_the_root_of_a_container() {
        let tree = Tree::new(
            "v2",
            &[
                ("cgroup.controllers", "cpu io memory"),
                ("memory.peak", "1048576\n"),
                ("cpu.stat", "usage_usec 7\n"),
                ("io.stat", "8:0 rbytes=3 wbytes=4\n"),
            ],
        );
        let expected = Usage {
            memory_peak_bytes: Some(1_048_576),
            cpu_microseconds: Some(7),
            disk_read_bytes: Some(3),
            disk_write_bytes: Some(4),
        };
        assert_eq!(usage(&tree.0, "0::/\n"), expected);
        assert_eq!(usage(&tree.0, "0::/../other\n"), expected);
    }

    #[test]
    fn a_container_in_the_hosts_namespace_reads_its_own_group() {
        let tree = Tree::new(
            "v2-host",
            &[
                ("cgroup.controllers", ""),
                ("cpu.stat", "usage_usec 999\n"),
                ("kubepods/pod1/cpu.stat", "usage_usec 7\n"),
            ],
        );
        assert_eq!(usage(&tree.0, "0::/kubepods/pod1\n"), Usage { cpu_microseconds: Some(7), ..Usage::default() });
    }

    #[test]
    fn version_1_is_read_wherever_its_controllers_are_mounted() {
        let tree = Tree::new(
            "v1",
            &[
                ("memory/memory.max_usage_in_bytes", "2097152\n"),
                ("cpu,cpuacct/cpuacct.usage", "5000999\n"),
                ("blkio/kubepods/pod1/c1/blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Write 6\nTotal 11\n"),
            ],
        );
        assert_eq!(
            usage(&tree.0, V1_MEMBERSHIP),
            Usage {
                memory_peak_bytes: Some(2_097_152),
                cpu_microseconds: Some(5_000),
                disk_read_bytes: Some(5),
                disk_write_bytes: Some(6)
            }
        );
    }

    #[test]
    fn where_nothing_is_mounted_nothing_is_claimed() {
        assert_eq!(usage(Path::new("/nowhere"), V1_MEMBERSHIP), Usage::default());
    }
}
