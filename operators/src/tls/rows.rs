//! Hellos as rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, RecordBatch, StringBuilder, UInt8Builder, UInt16Builder, UInt64Array,
};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use engine::batch::time_array;

use crate::format::hello_schema;
use client_hello::Hello;

/// Hellos in the columns of [`hello_schema`].
pub(super) struct HelloRows {
    schema: SchemaRef,
    sensor: Arc<str>,
    times: Vec<i64>,
    seqs: Vec<u64>,
    /// Whether the other forms of JA4 are filled in.
    variants: bool,
    texts: [StringBuilder; 13],
    forms: [StringBuilder; 3],
    small: [UInt8Builder; 2],
    flags: [BooleanBuilder; 3],
    ports: [UInt16Builder; 2],
    ip: (UInt8Builder, UInt16Builder, UInt16Builder, BooleanBuilder),
    tcp: (UInt16Builder, UInt16Builder, UInt8Builder),
    delays: Float64Builder,
}

impl HelloRows {
    /// No rows; all will have this `sensor_id`, and with `variants` the other forms of JA4.
    pub(super) fn new(sensor: Arc<str>, variants: bool) -> Self {
        Self {
            schema: hello_schema(),
            sensor,
            times: Vec::new(),
            seqs: Vec::new(),
            variants,
            texts: Default::default(),
            forms: Default::default(),
            small: Default::default(),
            flags: Default::default(),
            ports: Default::default(),
            ip: Default::default(),
            tcp: Default::default(),
            delays: Float64Builder::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Adds a hello that the packet `seq` completed, which came on this interface.
    pub(super) fn push(&mut self, seq: u64, hello: &Hello, interface: Option<&str>) {
        let tcp = hello.tcp.as_ref();
        self.times.push(hello.time);
        self.seqs.push(seq);
        let (src, dst) = (hello.src.to_string(), hello.dst.to_string());
        let texts = [
            Some(&*self.sensor),
            Some(&src),
            Some(&dst),
            Some(&hello.conn_id),
            tcp.map(|tcp| tcp.options.as_str()),
            hello.tls_version,
            hello.sni.as_deref(),
            hello.alpn.as_deref(),
            Some(&hello.ja4),
            Some(&hello.ja3),
            Some(&hello.ja3_hash),
            Some(hello.transport.name()),
            interface,
        ];
        for (values, text) in self.texts.iter_mut().zip(texts) {
            values.append_option(text);
        }
        for (values, port) in self.ports.iter_mut().zip([hello.src_port, hello.dst_port]) {
            values.append_value(port);
        }
        self.ip.0.append_value(hello.ip.ttl);
        self.ip.1.append_option(hello.ip.total_length);
        self.ip.2.append_option(hello.ip.id);
        self.ip.3.append_option(hello.ip.df);
        self.tcp.0.append_option(tcp.map(|tcp| tcp.window_size));
        self.tcp.1.append_option(tcp.and_then(|tcp| tcp.mss));
        self.tcp.2.append_option(tcp.and_then(|tcp| tcp.window_scale));
        for (values, number) in self.small.iter_mut().zip([hello.index, hello.ip.initial_ttl()]) {
            values.append_value(number);
        }
        for (values, flag) in self.flags.iter_mut().zip([hello.ech, hello.post_quantum, hello.ambiguous]) {
            values.append_value(flag);
        }
        let forms =
            self.variants.then(|| [hello.values.raw(), hello.values.hashed_original(), hello.values.raw_original()]);
        for (at, values) in self.forms.iter_mut().enumerate() {
            values.append_option(forms.as_ref().map(|forms| &forms[at]));
        }
        self.delays.append_option(hello.syn_to_clienthello_ms);
    }

    /// The rows so far; empty afterwards.
    ///
    /// # Errors
    /// Never: the columns are made to the schema.
    pub(super) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        let [sensor, src, dst, conn, options, version, sni, alpn, ja4, ja3, ja3_hash, transport, interface] =
            self.texts.each_mut().map(|values| Arc::new(values.finish()) as ArrayRef);
        let [ja4_r, ja4_o, ja4_ro] = self.forms.each_mut().map(|values| Arc::new(values.finish()) as ArrayRef);
        let [index, initial_ttl] = self.small.each_mut().map(|values| Arc::new(values.finish()) as ArrayRef);
        let [ech, post_quantum, ambiguous] = self.flags.each_mut().map(|values| Arc::new(values.finish()) as ArrayRef);
        let [src_port, dst_port] = self.ports.each_mut().map(|values| Arc::new(values.finish()) as ArrayRef);
        let columns: Vec<ArrayRef> = vec![
            time_array(std::mem::take(&mut self.times)),
            Arc::new(UInt64Array::from(std::mem::take(&mut self.seqs))),
            sensor,
            src,
            src_port,
            dst,
            dst_port,
            conn,
            Arc::new(self.ip.0.finish()),
            Arc::new(self.ip.1.finish()),
            Arc::new(self.ip.2.finish()),
            Arc::new(self.ip.3.finish()),
            Arc::new(self.tcp.0.finish()),
            Arc::new(self.tcp.1.finish()),
            Arc::new(self.tcp.2.finish()),
            options,
            Arc::new(self.delays.finish()),
            version,
            sni,
            alpn,
            ja4,
            ja3,
            ja3_hash,
            transport,
            index,
            initial_ttl,
            ech,
            post_quantum,
            ambiguous,
            interface,
            ja4_r,
            ja4_o,
            ja4_ro,
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}
