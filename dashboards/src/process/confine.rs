//! What a query process cannot do.
//!
//! | by | what |
//! |---|---|
//! | `setrlimit(2)` | bounded memory (`RLIMIT_DATA`), no files written (`RLIMIT_FSIZE`), no core files |
//! | `prctl(2)`, capabilities | no rights, and none by running another program; it ends when the run ends |
//! | Landlock | only files below the tables' directories are read; no connections, except to where stored rows are read from |
//! | seccomp | no other program is run, no signals to others, no sockets, no mounts, no tracing |
//! | `oom_score_adj`, niceness | it goes first when the machine has no memory left, and last when it has no processor left |

use std::collections::BTreeMap;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
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
const NETWORK_FILES: [&str; 6] =
    ["/etc", "/lib", "/lib64", "/usr/lib", "/usr/share/ca-certificates", "/run/systemd/resolve"];

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
const NETWORK: &[libc::c_long] = &[libc::SYS_socket, libc::SYS_connect];

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
    if !begin.connects {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(text)?;
    }
    let mut created = ruleset.create().map_err(text)?;
    let network = NETWORK_FILES.iter().filter(|_| begin.connects).map(std::path::PathBuf::from);
    for path in begin.readable.iter().cloned().chain(network) {
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
    // To abort, a process sends a signal to itself.
    let own = u64::from(std::process::id());
    let other =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, own).map_err(|error| text(&error))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![other]).map_err(|error| text(&error))?]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into().map_err(|error| text(&error))?;
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture).map_err(|error| text(&error))?;
    let program: BpfProgram = filter.try_into().map_err(|error: seccompiler::BackendError| text(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| text(&error))
}
