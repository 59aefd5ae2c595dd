//! What the container has used, read from its own control group: peak memory, processor time, disk traffic, and how
//! often it ran out of memory. Both versions of the interface are read. The group is found once, at the start: a daemon
//! may move its processes into groups of its own later, all of which count with it.
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html>, <https://docs.kernel.org/admin-guide/cgroup-v1/>

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use image_factory_core::report::Usage;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Nothing read here is longer; a cap on every read all the same.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// How often a counter is looked at that the kernel keeps no peak of, or that others read.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// Counts from its making on.
pub struct Meter {
    begin: Instant,
    group: Group,
    /// The highest memory seen, where the kernel keeps no peak.
    memory_seen: AtomicU64,
    /// How often one of the group, or of those below it, was out of memory (version 1 only).
    out_of_memory: Option<EventFd>,
    notified: AtomicU64,
}

/// The folders of the container's own group.
#[derive(Default)]
struct Group {
    /// Version 2 has one for all controllers.
    unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    blkio: Option<PathBuf>,
}

impl Meter {
    /// `root` is where control groups are mounted.
    pub fn start(root: &Path) -> Self {
        Self::new(root, &fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    /// `membership` is the text of `/proc/self/cgroup`.
    fn new(root: &Path, membership: &str) -> Self {
        let group = Group::find(root, membership);
        let out_of_memory = group.memory.as_ref().and_then(|folder| notifications(folder).ok());
        let (memory_seen, notified) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { begin: Instant::now(), group, memory_seen, out_of_memory, notified }
    }

    /// Whether [`Meter::usage`] has to be asked again and again for a true peak: kernels before 5.19.
    pub fn is_sampling(&self) -> bool {
        self.group.unified.as_ref().is_some_and(|folder| !folder.join("memory.peak").exists())
    }

    pub fn usage(&self) -> Usage {
        let usage = match &self.group.unified {
            Some(folder) => self.unified(folder),
            None => self.version_1(),
        };
        Usage { milliseconds: u64::try_from(self.begin.elapsed().as_millis()).ok(), ..usage }
    }

    fn unified(&self, folder: &Path) -> Usage {
        let file = |name: &str| read(&folder.join(name));
        let disk = file("io.stat").map(|text| io_stat(&text));
        let peak = file("memory.peak").and_then(|text| number(&text)).or_else(|| {
            let now = number(&file("memory.current")?)?;
            Some(self.memory_seen.fetch_max(now, Ordering::Relaxed).max(now))
        });
        Usage {
            memory_peak_bytes: peak,
            cpu_microseconds: file("cpu.stat").and_then(|text| keyed(&text, "usage_usec")),
            disk_read_bytes: disk.map(|(read, _)| read),
            disk_write_bytes: disk.map(|(_, written)| written),
            oom_kills: file("memory.events").and_then(|text| keyed(&text, "oom_kill")),
            milliseconds: None,
        }
    }

    fn version_1(&self) -> Usage {
        let file = |folder: &Option<PathBuf>, name: &str| read(&folder.as_ref()?.join(name));
        let (memory, cpuacct, blkio) = (&self.group.memory, &self.group.cpuacct, &self.group.blkio);
        let disk = file(blkio, "blkio.throttle.io_service_bytes_recursive")
            .or_else(|| file(blkio, "blkio.throttle.io_service_bytes"))
            .and_then(|text| io_service_bytes(&text));
        Usage {
            memory_peak_bytes: file(memory, "memory.max_usage_in_bytes").and_then(|text| number(&text)),
            cpu_microseconds: file(cpuacct, "cpuacct.usage")
                .and_then(|text| number(&text))
                .map(|nanoseconds| nanoseconds / 1_000),
            disk_read_bytes: disk.map(|(read, _)| read),
            disk_write_bytes: disk.map(|(_, written)| written),
            oom_kills: file(memory, "memory.oom_control")
                .and_then(|text| keyed(&text, "oom_kill"))
                .map(|kills| kills.max(self.notified())),
            milliseconds: None,
        }
    }

    fn notified(&self) -> u64 {
        let new = self.out_of_memory.as_ref().and_then(|events| events.read().ok()).unwrap_or(0);
        self.notified.fetch_add(new, Ordering::Relaxed) + new
    }
}

impl Group {
    fn find(root: &Path, membership: &str) -> Self {
        if root.join("cgroup.controllers").exists() {
            return Self { unified: Some(own_folder(root, membership_path(membership, ""))), ..Self::default() };
        }
        let folder = |controller: &str| {
            // Controllers are mounted alone or in pairs, `cpu,cpuacct` by custom.
            let mounts = [controller.to_owned(), format!("cpu,{controller}"), format!("{controller},cpu")];
            let mount = mounts.iter().map(|mount| root.join(mount)).find(|mount| mount.is_dir())?;
            Some(own_folder(&mount, membership_path(membership, controller)))
        };
        Self { unified: None, memory: folder("memory"), cpuacct: folder("cpuacct"), blkio: folder("blkio") }
    }
}

/// Version 1 counts a kill only in the killed process's own group, and BuildKit makes one for each step. For a whole
/// subtree it has notifications, which only who may write to the group can ask for.
fn notifications(memory: &Path) -> io::Result<EventFd> {
    let events = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = File::open(memory.join("memory.oom_control"))?;
    let request = format!("{} {}", events.as_fd().as_raw_fd(), control.as_raw_fd());
    OpenOptions::new().write(true).open(memory.join("cgroup.event_control"))?.write_all(request.as_bytes())?;
    Ok(events)
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
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).and_then(number)
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

/// `8:0 Read 1`, `8:0 Write 2`, ..., `Total 3`: a line a device and operation. Read and written, summed. `None` where no
/// device has a line: newer kernels count in version 1 only where a limit is set, and else say `Total 0` whatever is done.
fn io_service_bytes(text: &str) -> Option<(u64, u64)> {
    text.lines().find(|line| !line.starts_with("Total"))?;
    let sum = |operation: &str| {
        text.lines()
            .filter_map(|line| line.split_once(' ')?.1.strip_prefix(operation)?.strip_prefix(' '))
            .filter_map(number)
            .fold(0, u64::saturating_add)
    };
    Some((sum("Read"), sum("Write")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// All but the time.
    fn usage(root: &Path, membership: &str) -> Usage {
        Usage { milliseconds: None, ..Meter::new(root, membership).usage() }
    }

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
        assert_eq!(keyed("usage_usec 5170\nuser_usec 4000\nsystem_usec 1170\n", "usage_usec"), Some(5_170));
        assert_eq!(keyed("user_usec 4000\n", "usage_usec"), None);
        assert_eq!(keyed("oom 2\noom_kill 1\noom_group_kill 0\n", "oom_kill"), Some(1));
        assert_eq!(io_stat(""), (0, 0));
        assert_eq!(
            io_stat("8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=9 dios=0\n253:0 rbytes=1 wbytes=2\n"),
            (101, 202)
        );
        assert_eq!(
            io_service_bytes("8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:16 Read 1\n8:16 Write 2\nTotal 33\n"),
            Some((11, 22))
        );
        assert_eq!(io_service_bytes("8:0 Read 0\n8:0 Write 0\nTotal 0\n"), Some((0, 0)));
        assert_eq!(io_service_bytes("Total 0\n"), None);
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
                ("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n"),
            ],
        );
        let expected = Usage {
            memory_peak_bytes: Some(1_048_576),
            cpu_microseconds: Some(7),
            disk_read_bytes: Some(3),
            disk_write_bytes: Some(4),
            oom_kills: Some(1),
            milliseconds: None,
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
                ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
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
                disk_write_bytes: Some(6),
                oom_kills: Some(3),
                milliseconds: None,
            }
        );
    }

    #[test]
    fn groups_below_the_containers_own_count_with_it() {
        let tree = Tree::new(
            "v1-below",
            &[
                ("blkio/blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Write 6\n"),
                ("blkio/blkio.throttle.io_service_bytes_recursive", "8:0 Read 50\n8:0 Write 60\n"),
            ],
        );
        let usage = usage(&tree.0, V1_MEMBERSHIP);
        assert_eq!((usage.disk_read_bytes, usage.disk_write_bytes), (Some(50), Some(60)));
    }

    #[test]
    fn where_the_kernel_keeps_no_peak_the_highest_that_was_seen_counts() {
        let tree = Tree::new("v2-old", &[("cgroup.controllers", ""), ("memory.current", "10\n")]);
        let meter = Meter::new(&tree.0, "0::/\n");
        assert!(meter.is_sampling());
        for (now, peak) in [("10", 10), ("30", 30), ("20", 30)] {
            fs::write(tree.0.join("memory.current"), now).expect("writes");
            assert_eq!(meter.usage().memory_peak_bytes, Some(peak));
        }
    }

    #[test]
    fn where_nothing_is_mounted_nothing_is_claimed() {
        assert_eq!(usage(Path::new("/nowhere"), V1_MEMBERSHIP), Usage::default());
    }
}
