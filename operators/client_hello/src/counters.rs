//! What happened to the packets.

use super::layer::Layer;

/// Declares the counters once: as fields and, by name, for export.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counts since the extractor was made. Fields are in the order in which a packet meets them.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
            /// Packets that ended in a layer or tunnel whose inside was not reached, by the number of the [`Layer`].
            pub undecoded: [u64; Layer::ALL.len()],
        }

        impl Counters {
            /// Name and value of each.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                let undecoded = Layer::ALL.into_iter().zip(self.undecoded).map(|(layer, count)| (layer.counter(), count));
                [$((stringify!($name), self.$name),)+].into_iter().chain(undecoded)
            }
        }
    };
}

counters! {
    /// Packets given to the extractor.
    packets_received,
    /// Packets of a linktype that cannot be decoded.
    unknown_link,
    /// Packets that are not IP, and nothing that may carry it: ARP, LLDP, spanning tree. Also inside a tunnel.
    non_ip,
    /// IP packets other than TCP, and UDP datagrams without a ClientHello of QUIC or DTLS; tunnels aside.
    non_tcp,
    /// Packets whose snapshot length cut off headers or payload.
    truncated,
    /// Packets whose headers contradict themselves, and fragments of a length that only the last one may have.
    malformed,
    /// Fragments of IP packets.
    fragments,
    /// IP packets put together from fragments.
    fragments_joined,
    /// IP packets of which a fragment never came, that were evicted before it came, or that took too many fragments.
    fragments_incomplete,
    /// Initial packets of QUIC clients.
    quic_initials,
    /// Initial packets that the keys of their connection do not open: damaged, or the first was not captured.
    quic_undecryptable,
    /// Segments and datagrams to a port that is not watched.
    other_ports,
    /// Segments with data that no server takes: without ACK, with RST, or far outside of the window.
    refused_segments,
    /// Acknowledgements whose padding was taken for data.
    ack_padding,
    /// Segments with nothing new: retransmissions of data or of a SYN.
    retransmit_count,
    /// Segments of which a part was known already; the bytes seen first were kept.
    overlaps,
    /// Segments, fragments and CRYPTO frames whose bytes differ from those seen first at the same place.
    overlap_conflicts,
    /// Segments that came ahead of bytes still missing.
    gap_detected_count,
    /// Connections given up because one hello took more segments than allowed, repetitions included.
    segment_exceeded_count,
    /// Connections given up because a hello was larger than allowed, or evicted because all buffers together were.
    buffer_exceeded_count,
    /// Connections evicted to make room for a new one of which only a SYN was seen.
    flows_evicted_syn,
    /// Other unfinished connections evicted to make room for a new one.
    flows_evicted,
    /// Finished connections forgotten early to make room for a new one.
    flows_recycled,
    /// Connections forgotten, finished or not, because nothing came for the timeout.
    flows_expired,
    /// Connections forgotten, evicted or at the end of the input with part of a hello buffered.
    incomplete_hellos,
    /// Connections that began anew on the same addresses and ports.
    ports_reused,
    /// Connections whose client does not begin with a ClientHello, or whose beginning was not captured.
    not_tls,
    /// Connections whose hello cannot be parsed.
    malformed_hellos,
    /// Hellos handed on.
    hellos,
    /// Of these, those of which the client has sent two versions.
    ambiguous_hellos,
}
