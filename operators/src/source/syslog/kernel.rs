//! What the kernel knows of sockets: how many datagrams it had no room for.

use std::os::fd::AsRawFd;

/// The number by which the kernel lists a socket.
pub(super) fn inode(socket: &impl AsRawFd) -> Option<String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let link = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
    Some(link.to_owned())
}

/// Datagrams that the kernel has dropped at these sockets, as `/proc/net/udp` has them; 0 where that cannot be read.
pub(super) fn dropped(inodes: &[String]) -> u64 {
    let of_table = |path: &str| std::fs::read_to_string(path).map_or(0, |table| drops(&table, inodes));
    of_table("/proc/self/net/udp") + of_table("/proc/self/net/udp6")
}

fn drops(table: &str, inodes: &[String]) -> u64 {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_own = fields.get(9).is_some_and(|inode| inodes.iter().any(|own| own == inode));
        fields.get(12).filter(|_| is_own).and_then(|drops| drops.parse::<u64>().ok())
    };
    table.lines().filter_map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_dropped_stands_in_the_last_column() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 123: 0100007F:158A 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4242 2 0000000000000000 17\n\
            \x20 124: 0100007F:158B 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4243 2 0000000000000000 5\n";
        assert_eq!(drops(table, &["4242".to_owned()]), 17);
        assert_eq!(drops(table, &["1".to_owned()]), 0);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let inode = inode(&socket).expect("Linux lists it");
        let table = std::fs::read_to_string("/proc/self/net/udp").expect("Linux has it");
        assert!(table.contains(&inode), "{inode} in {table}");
    }
}
