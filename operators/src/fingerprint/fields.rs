//! The fields of a hello. Those that a column of [`hello_schema`](crate::format::hello_schema) has as well are named as it is:
//! the lines are read as `format: ja4sentinel`.

use std::ops::Deref;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use client_hello::Hello;

/// A value of a field; `Null` is what is not there, never 0 or an empty text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Text(&'a str),
    Made(String),
    Number(u64),
    Float(f64),
    Bool(bool),
}

impl<'a> Value<'a> {
    fn text(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }

    fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Null, |number| Self::Number(number.into()))
    }
}

/// A hello with what is known of it from elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'h> {
    pub hello: &'h Hello,
    pub sensor_id: &'h str,
    pub interface: Option<&'h str>,
}

impl Deref for Line<'_> {
    type Target = Hello;

    fn deref(&self) -> &Hello {
        self.hello
    }
}

/// Declares the fields once: in the order of the output, with meaning and value; some with the name that they had before.
macro_rules! fields {
    ($($variant:ident $name:literal $(($before:literal))? $doc:literal = $value:expr;)+) => {
        /// A field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant,)+ }

        impl Field {
            /// All, in the order of the output.
            pub(super) fn all() -> impl Iterator<Item = Self> {
                Self::value_variants().iter().copied()
            }

            /// As the output and the command line spell it.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The field of a hello.
            pub(super) fn of<'h>(self, line: &'h Line<'h>) -> Value<'h> {
                let value: fn(&'h Line<'h>) -> Value<'h> = match self { $(Self::$variant => $value,)+ };
                value(line)
            }
        }

        impl ValueEnum for Field {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Self::$variant,)+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self { $(Self::$variant => PossibleValue::new($name).help($doc)$(.alias($before))?,)+ })
            }
        }
    };
}

fields! {
    Timestamp "timestamp" "time of the packet that completed the hello, ns since the epoch"
        = |h| Value::Number(h.time.max(0) as u64);
    SensorId "sensor_id" "the sensor, by default this machine's name" = |h| Value::Text(h.sensor_id);
    SrcIp "src_ip" "the client" = |h| Value::Made(h.src.to_string());
    SrcPort "src_port" "its port" = |h| Value::Number(h.src_port.into());
    DstIp "dst_ip" "the server" = |h| Value::Made(h.dst.to_string());
    DstPort "dst_port" "its port" = |h| Value::Number(h.dst_port.into());
    Transport "transport" "tcp, quic or dtls" = |h| Value::Text(h.transport.name());
    Hello "hello" "0 for the connection's first hello, 1 for the second" = |h| Value::Number(h.index.into());
    ConnId "conn_id" "names the connection" = |h| Value::Text(&h.conn_id);
    Ja4 "ja4" "JA4" = |h| Value::Text(&h.ja4);
    Ja4R "ja4_r" "JA4, unhashed" = |h| Value::Made(h.values.raw());
    Ja4O "ja4_o" "JA4 in wire order" = |h| Value::Made(h.values.hashed_original());
    Ja4Ro "ja4_ro" "JA4 in wire order, unhashed" = |h| Value::Made(h.values.raw_original());
    Ja3 "ja3" "JA3, unhashed" = |h| Value::Text(&h.ja3);
    Ja3Hash "ja3_hash" "MD5 of the JA3" = |h| Value::Text(&h.ja3_hash);
    Sni "tls_sni" ("sni") "the server name asked for" = |h| Value::text(h.sni.as_deref());
    Alpn "tls_alpn" ("alpn") "the first protocol of ALPN" = |h| Value::text(h.alpn.as_deref());
    Alpns "tls_alpns" ("alpns") "all protocols of ALPN, comma-separated"
        = |h| if h.alpns.is_empty() { Value::Null } else { Value::Made(h.alpns.join(",")) };
    TlsVersion "tls_version" "the newest version offered" = |h| Value::text(h.tls_version);
    Ech "ech" "Encrypted Client Hello offered, or a GREASE offer" = |h| Value::Bool(h.ech);
    PostQuantum "post_quantum" "a key share is of a post-quantum group" = |h| Value::Bool(h.post_quantum);
    Ambiguous "ambiguous" "the client sent two versions of it, and the packets do not tell which one counts"
        = |h| Value::Bool(h.ambiguous);
    Interface "interface" "where it was captured, if that is known" = |h| Value::text(h.interface);
    EarlyData "early_data" "data before the server's answer offered" = |h| Value::Bool(h.early_data);
    IpTtl "ip_meta_ttl" "time to live or hop limit" = |h| Value::Number(h.ip.ttl.into());
    InitialTtl "initial_ttl" "the time to live that the client probably sent" = |h| Value::Number(h.ip.initial_ttl().into());
    IpLength "ip_meta_total_length" "bytes of the IP packet" = |h| Value::number(h.ip.total_length);
    IpId "ip_meta_id" "IPv4 identification" = |h| Value::number(h.ip.id);
    IpDf "ip_meta_df" "IPv4 don't fragment" = |h| h.ip.df.map_or(Value::Null, Value::Bool);
    Window "tcp_meta_window_size" "window of the SYN" = |h| Value::number(h.tcp.as_ref().map(|tcp| tcp.window_size));
    Mss "tcp_meta_mss" "maximum segment size of the SYN" = |h| Value::number(h.tcp.as_ref().and_then(|tcp| tcp.mss));
    WindowScale "tcp_meta_window_scale" "window scale of the SYN"
        = |h| Value::number(h.tcp.as_ref().and_then(|tcp| tcp.window_scale));
    TcpOptions "tcp_meta_options" "options of the SYN in wire order"
        = |h| Value::text(h.tcp.as_ref().map(|tcp| tcp.options.as_str()));
    SynToHello "syn_to_clienthello_ms" "milliseconds from the SYN to the hello"
        = |h| h.syn_to_clienthello_ms.map_or(Value::Null, Value::Float);
}

/// The fields of a table.
pub(super) const TABLE: &[Field] = &[
    Field::SrcIp,
    Field::SrcPort,
    Field::DstIp,
    Field::DstPort,
    Field::Transport,
    Field::Hello,
    Field::Ja4,
    Field::Alpn,
    Field::Sni,
];
