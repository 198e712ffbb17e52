//! How many threads pay on this machine: one per physical core that this process may use.

use std::collections::HashSet;
use std::fs;

/// Physical cores that this process may use.
pub fn physical_cores() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cores = allowed_processors().and_then(|list| count_cores(&list));
    cores.map_or(logical, |cores| cores.clamp(1, logical))
}

/// The processor's name.
pub fn model_name() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_string()
}

/// Processors in this process's affinity mask.
fn allowed_processors() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse_list(line.trim())
}

/// Distinct sets of sibling threads among `processors`.
fn count_cores(processors: &[usize]) -> Option<usize> {
    let siblings = |processor: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
        fs::read_to_string(path).ok()
    };
    let cores: Option<HashSet<String>> = processors.iter().map(siblings).collect();
    cores.map(|cores| cores.len())
}

/// The kernel's lists: `0-3,8,10-11`.
fn parse_list(list: &str) -> Option<Vec<usize>> {
    let mut all = vec![];
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last.min(first.saturating_add(1 << 16)));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_processors() {
        assert_eq!(parse_list("0-2,8"), Some(vec![0, 1, 2, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list(""), None);
        let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
        assert!((1..=logical).contains(&physical_cores()));
        assert!(!model_name().is_empty());
    }
}
