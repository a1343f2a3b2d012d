//! The end of a file of lines, until it is confirmed.

/// Bytes that are kept until they are confirmed, so that they can be written again if somebody removes the file.
const RECENT: usize = 8 << 20;

/// The end of a file.
#[derive(Default)]
pub(super) struct Recent {
    /// The bytes before it.
    pub base: u64,
    pub text: Vec<u8>,
}

impl Recent {
    /// The file begins to be written here.
    pub fn begin(&mut self, base: u64) {
        self.base = base;
        self.text.clear();
    }

    pub fn add(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        if self.text.len() > RECENT {
            self.begin(self.base + self.text.len() as u64);
        }
    }

    /// The first so many bytes of the file are confirmed.
    pub fn confirm(&mut self, bytes: u64) {
        let confirmed = usize::try_from(bytes.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.text.len());
        self.text.drain(..confirmed);
        self.base += confirmed as u64;
    }
}
