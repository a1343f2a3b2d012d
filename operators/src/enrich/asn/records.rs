//! What is known of networks, each combination once: a system has many networks.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder, UInt32Builder};

/// The most bytes of all texts together: a database may name one long text in many ways. Real files have some megabytes.
const MOST_BYTES: usize = 256 << 20;

/// What is said of a network: its AS, country, names and domain.
type Facts = (Option<u32>, [Box<str>; 4]);

/// What is known of networks.
#[derive(Default)]
pub(super) struct Records {
    known: HashMap<Facts, u32, ahash::RandomState>,
    asn: UInt32Builder,
    texts: [StringBuilder; 4],
    bytes: usize,
}

impl Records {
    /// The row of system, country code, name, organisation and domain. An empty text is none.
    ///
    /// # Errors
    /// If there is too much of it.
    pub fn add(&mut self, asn: Option<u32>, texts: [&str; 4]) -> Result<u32, String> {
        let next = self.known.len() as u32;
        let record = *self.known.entry((asn, texts.map(Into::into))).or_insert(next);
        if record == next {
            self.bytes += texts.iter().map(|text| text.len()).sum::<usize>();
            if self.bytes > MOST_BYTES {
                return Err(format!("countries, names and domains have more than {MOST_BYTES} bytes"));
            }
            self.asn.append_option(asn);
            for (column, text) in self.texts.iter_mut().zip(texts) {
                column.append_option((!text.is_empty()).then_some(text));
            }
        }
        Ok(record)
    }

    /// Whether any row has a system, and whether any has a country.
    pub fn have(&self) -> [bool; 2] {
        let rows = self.known.keys();
        [rows.clone().any(|(asn, _)| asn.is_some()), rows.clone().any(|(_, texts)| !texts[0].is_empty())]
    }

    /// The five columns.
    pub fn finish(mut self) -> [ArrayRef; 5] {
        let [country, name, org, domain] = &mut self.texts;
        [
            Arc::new(self.asn.finish()),
            Arc::new(country.finish()),
            Arc::new(name.finish()),
            Arc::new(org.finish()),
            Arc::new(domain.finish()),
        ]
    }
}
