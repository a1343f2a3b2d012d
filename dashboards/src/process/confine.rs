//! What a query process cannot do.
//!
//! | by | what |
//! |---|---|
//! | `setrlimit(2)` | bounded memory (`RLIMIT_DATA`), no files written (`RLIMIT_FSIZE`), no core files |
//! | `prctl(2)`, capabilities | no rights, and none by running another program; it ends when the run ends |
//! | Landlock | only files below the tables' directories are read; no connections, except to where stored rows are read from |
//! | seccomp | no other program or process is started, no signals to others, no sockets, no shared memory, no mounts, no tracing |
//! | `oom_score_adj`, niceness | it goes first when the machine has no memory left, and last when it has no processor left |

use std::collections::BTreeMap;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rlimit::Resource;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use system::give_way;

use super::wire::Begin;

/// Where a client of HTTPS looks for names and certificates.
const NETWORK_FILES: [&str; 15] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/share/ca-certificates",
    "/run/systemd/resolve",
];

/// How far others go first, of 19.
const NICENESS: u8 = 10;

/// System calls that a query never needs.
const DENIED: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    libc::SYS_shmget,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
];

/// Those that it needs only to read from another place.
const NETWORK: &[libc::c_long] = &[libc::SYS_connect];

/// Gives up all that a query does not need. Comes before any other thread is started: they inherit what is left.
///
/// What this system does not have is in the list; the bound on memory is not optional.
///
/// # Errors
/// If the memory cannot be bounded.
pub(super) fn confine(begin: &Begin) -> Result<Vec<String>, String> {
    let mut missing = Vec::new();
    let mut note = |what: &str, done: Result<(), String>| {
        if let Err(why) = done {
            missing.push(format!("{what}: {why}"));
        }
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    rlimit::setrlimit(Resource::DATA, begin.memory, begin.memory)
        .map_err(|error| format!("the memory of a query process cannot be bounded: {error}"))?;
    for resource in [Resource::FSIZE, Resource::CORE] {
        note("setrlimit", rlimit::setrlimit(resource, 0, 0).map_err(|error| text(&error)));
    }
    note("oom_score_adj", std::fs::write("/proc/self/oom_score_adj", "1000").map_err(|error| text(&error)));
    note("niceness", give_way(NICENESS).map_err(|error| text(&error)));
    note("prctl", prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| text(&error)));
    note("no_new_privs", prctl::set_no_new_privs().map_err(|error| text(&error)));
    note("capabilities", engine::privileges::give_up());
    note("Landlock", files_and_network(begin));
    note("seccomp", system_calls(begin));
    Ok(missing)
}

fn files_and_network(begin: &Begin) -> Result<(), String> {
    let text = |error: landlock::RulesetError| error.to_string();
    let abi = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(abi)).map_err(text)?;
    // Signals to others, and abstract sockets.
    ruleset = ruleset.scope(Scope::from_all(abi)).map_err(text)?;
    if !begin.connects {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(text)?;
    }
    let mut created = ruleset.create().map_err(text)?;
    let network = NETWORK_FILES.iter().filter(|_| begin.connects).map(PathBuf::from);
    let own = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    for path in begin.readable.iter().cloned().chain(network).chain(own) {
        // A directory that is not there has nothing to read.
        if let Ok(path) = PathFd::new(&path) {
            created = created.add_rule(PathBeneath::new(path, read)).map_err(text)?;
        }
    }
    let status = created.restrict_self().map_err(text)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
        _ => Ok(()),
    }
}

fn system_calls(begin: &Begin) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let network = NETWORK.iter().filter(|_| !begin.connects);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        DENIED.iter().chain(network).map(|call| (*call, Vec::new())).collect();
    for (call, when) in conditions(begin)? {
        rules.entry(call).or_default().push(SeccompRule::new(when).map_err(|error| text(&error))?);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    // The library falls back to `clone`, whose flags a filter can see, where this call is not there.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    for (rules, answer) in [(rules, refused), (unknown, SeccompAction::Errno(libc::ENOSYS as u32))] {
        let architecture = std::env::consts::ARCH.try_into().map_err(|error| text(&error))?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture);
        let filter = filter.map_err(|error| text(&error))?;
        let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| text(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| text(&error))?;
    }
    Ok(())
}

/// Calls that are refused with certain arguments: each with conditions that all hold.
fn conditions(begin: &Begin) -> Result<Vec<(i64, Vec<SeccompCondition>)>, String> {
    let argument = |nth: u8, how: SeccompCmpOp, value: u64| {
        SeccompCondition::new(nth, SeccompCmpArgLen::Dword, how, value).map_err(|error| error.to_string())
    };
    let own = u64::from(std::process::id());
    let (thread, shared) = (libc::CLONE_THREAD as u64, libc::MAP_SHARED as u64);
    let mut all = vec![
        // To abort, a process sends a signal to itself.
        (libc::SYS_tgkill, vec![argument(0, SeccompCmpOp::Ne, own)?]),
        (libc::SYS_prlimit64, vec![argument(0, SeccompCmpOp::Ne, 0)?]),
        // Threads, and no processes: those would outlive it.
        (libc::SYS_clone, vec![argument(0, SeccompCmpOp::MaskedEq(thread), 0)?]),
        // Shared memory is not bounded. Rows in memory are mapped privately.
        (libc::SYS_mmap, vec![argument(3, SeccompCmpOp::MaskedEq(shared), shared)?]),
    ];
    // Signals by way of a descriptor: F_SETOWN, F_SETSIG, F_SETOWN_EX.
    for command in [8, 10, 15] {
        all.push((libc::SYS_fcntl, vec![argument(1, SeccompCmpOp::Eq, command)?]));
    }
    let families = if begin.connects { &[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK][..] } else { &[] };
    let mut socket = vec![argument(0, SeccompCmpOp::Ge, 0)?];
    for family in families {
        socket.push(argument(0, SeccompCmpOp::Ne, *family as u64)?);
    }
    all.push((libc::SYS_socket, socket));
    Ok(all)
}
