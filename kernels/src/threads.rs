//! How many threads this process may keep busy: the processors that the scheduler lets it run
//! on, and the share of their time that its control group is given.

use std::num::NonZero;
use std::thread;

/// The threads that kernels run on unless somebody says otherwise, at least one: the processors
/// of this thread's affinity mask, or fewer where a control group's quota pays for fewer (half a
/// processor's time is still a thread).
pub fn default_threads() -> usize {
    let processors = processors();
    #[cfg(target_os = "linux")]
    let processors = quota::processors(std::path::Path::new("/")).map_or(processors, |quota| {
        // Rounded up: a thread that is paused for a part of each period beats none.
        processors.min(quota.ceil().max(1.0) as usize)
    });
    processors
}

/// Those of the scheduler's affinity mask.
pub(crate) fn processors() -> usize {
    #[cfg(target_os = "linux")]
    if let Some(count) = affinity() {
        return count;
    }
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// `None` when the system does not say, as for a machine beyond 1,024 processors.
#[cfg(target_os = "linux")]
fn affinity() -> Option<usize> {
    // SAFETY: a set of processors is bits, all zero at first.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to room for as many bytes as the call is told; 0 is this thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0;
    // SAFETY: the call wrote the set.
    let count = unsafe { libc::CPU_COUNT(&set) };
    (!failed).then(|| usize::try_from(count).ok()).flatten().filter(|&count| count > 0)
}

/// CPU quotas of control groups, as files under a root that tests choose.
#[cfg(target_os = "linux")]
mod quota {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Processors that the tightest quota on this process pays for. `None`: there is none.
    pub(super) fn processors(root: &Path) -> Option<f64> {
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
        let quotas = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            // Version 2 has one hierarchy, without names of controllers.
            if controllers.is_empty() {
                let mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
                tightest(root, &mounts, path, of_version_2)
            } else if controllers.split(',').any(|name| name == "cpu") {
                let mounts = ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"];
                tightest(root, &mounts, path, of_version_1)
            } else {
                None
            }
        });
        quotas.reduce(f64::min)
    }

    /// Of the group and of all groups around it. Inside a container the path may name a group
    /// that is mounted at the root, so what does not exist is passed over.
    fn tightest(
        root: &Path,
        mounts: &[&str],
        path: &str,
        quota: fn(&Path) -> Option<f64>,
    ) -> Option<f64> {
        let group = Path::new(path.trim_start_matches('/'));
        let around = |mount: &&str| -> Vec<PathBuf> {
            let mount = root.join(mount);
            group.ancestors().map(|group| mount.join(group)).collect()
        };
        let quotas = mounts.iter().flat_map(around).filter_map(|folder| quota(&folder));
        quotas.reduce(f64::min)
    }

    /// `cpu.max`: microseconds in each period, or `max`, and the period.
    fn of_version_2(folder: &Path) -> Option<f64> {
        let text = fs::read_to_string(folder.join("cpu.max")).ok()?;
        let mut words = text.split_whitespace();
        share(words.next()?, words.next()?)
    }

    /// -1 microseconds in each period is no quota.
    fn of_version_1(folder: &Path) -> Option<f64> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        share(read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim())
    }

    fn share(quota: &str, period: &str) -> Option<f64> {
        let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
        (quota > 0.0 && period > 0.0).then_some(quota / period)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A folder that is a root, gone when the test ends.
        struct Root(PathBuf);

        impl Root {
            fn new(name: &str, files: &[(&str, &str)]) -> Root {
                let folder = format!("weir-threads-{}-{name}", std::process::id());
                let root = Root(std::env::temp_dir().join(folder));
                for (path, text) in files {
                    let path = root.0.join(path);
                    fs::create_dir_all(path.parent().expect("a file in a folder"))
                        .expect("a folder of the test");
                    fs::write(path, text).expect("a file of the test");
                }
                root
            }
        }

        impl Drop for Root {
            fn drop(&mut self) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }

        #[track_caller]
        fn check(name: &str, files: &[(&str, &str)], expected: Option<f64>) {
            assert_eq!(processors(&Root::new(name, files).0), expected, "{name}");
        }

        #[test]
        fn version_2_counts_every_group_on_the_way_up() {
            let group = ("proc/self/cgroup", "0::/pods/weir\n");
            let own = ("sys/fs/cgroup/pods/weir/cpu.max", "300000 100000\n");
            let outer = ("sys/fs/cgroup/pods/cpu.max", "150000 100000\n");
            let free = ("sys/fs/cgroup/pods/weir/cpu.max", "max 100000\n");
            check("own", &[group, own], Some(3.0));
            check("outer", &[group, own, outer], Some(1.5));
            check("free", &[group, free], None);
            check("free-within", &[group, free, outer], Some(1.5));
        }

        #[test]
        fn a_container_may_see_its_group_as_the_root() {
            let group = ("proc/self/cgroup", "0::/docker/0123\n");
            check("v2", &[group, ("sys/fs/cgroup/cpu.max", "50000 100000")], Some(0.5));
        }

        #[test]
        fn version_1_has_a_quota_and_a_period() {
            let group = ("proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/box\n0::/\n");
            let period = ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us", "100000\n");
            let quota = |text| ("sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us", text);
            check("v1", &[group, period, quota("250000\n")], Some(2.5));
            check("v1-free", &[group, period, quota("-1\n")], None);
        }

        #[test]
        fn what_cannot_be_read_is_no_quota() {
            let group = ("proc/self/cgroup", "0::/\nnonsense\n");
            check("nothing", &[], None);
            check("no-file", &[group], None);
            check("nonsense", &[group, ("sys/fs/cgroup/cpu.max", "much")], None);
            check("zero", &[group, ("sys/fs/cgroup/cpu.max", "100000 0")], None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_threads_as_processors_at_most() {
        assert!((1..=processors()).contains(&default_threads()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_narrower_mask_means_fewer_threads() {
        // On a thread of its own: the mask ends with it.
        let narrowed = thread::spawn(|| {
            // SAFETY: a set of processors is bits, all zero at first.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: the pointers are to the set, and 0 is this thread; the processor that it
            // runs on is one that it may use.
            unsafe {
                let here = usize::try_from(libc::sched_getcpu()).expect("a processor");
                libc::CPU_SET(here, &mut set);
                assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
            }
            default_threads()
        });
        assert_eq!(narrowed.join().expect("it counts"), 1);
    }
}
