//! The first bytes on each connection: who speaks, and what it runs.

use crate::Peer;

/// Bytes of a [`Hello`] on the wire.
pub(crate) const LENGTH: usize = 92;

const MAGIC: &[u8; 8] = b"ja4-eng\n";
const VERSION_LENGTH: usize = 24;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Timely's messages.
    Data = 0,
    /// The watch's.
    Watch = 1,
}

/// What is said about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The one who connects offers it.
    Offer = 0,
    /// The other takes it.
    Accepted = 1,
    /// The other is connected with a process of this number already.
    Taken = 2,
    /// The other runs something else.
    Refused = 3,
}

/// Sent by the one who connects, then by the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The program's version, padded with zeros.
    pub version: [u8; VERSION_LENGTH],
    /// What is to be run.
    pub digest: [u8; 32],
    /// Which process speaks.
    pub from: u32,
    /// Which process it believes to speak to.
    pub to: u32,
    /// How many processes it knows of.
    pub processes: u32,
    /// How many workers it has.
    pub threads: u32,
    /// A number that tells a process from the one that was started before it in its place.
    pub instance: u64,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Offer or answer.
    pub answer: Answer,
}

impl Hello {
    pub fn version() -> [u8; VERSION_LENGTH] {
        let mut version = [0; VERSION_LENGTH];
        for (to, from) in version.iter_mut().zip(env!("CARGO_PKG_VERSION").bytes()) {
            *to = from;
        }
        version
    }

    pub fn to_bytes(&self) -> [u8; LENGTH] {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version);
        bytes.extend_from_slice(&self.digest);
        for number in [self.from, self.to, self.processes, self.threads] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.instance.to_be_bytes());
        bytes.extend_from_slice(&[self.purpose as u8, self.answer as u8, 0, 0]);
        let mut array = [0; LENGTH];
        array.copy_from_slice(&bytes);
        array
    }

    /// `None` for what no such process has sent.
    pub fn from_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        let mut rest = bytes.as_slice();
        if &take::<8>(&mut rest)? != MAGIC {
            return None;
        }
        Some(Self {
            version: take(&mut rest)?,
            digest: take(&mut rest)?,
            from: u32::from_be_bytes(take(&mut rest)?),
            to: u32::from_be_bytes(take(&mut rest)?),
            processes: u32::from_be_bytes(take(&mut rest)?),
            threads: u32::from_be_bytes(take(&mut rest)?),
            instance: u64::from_be_bytes(take(&mut rest)?),
            purpose: match take::<1>(&mut rest)? {
                [0] => Purpose::Data,
                [1] => Purpose::Watch,
                _ => return None,
            },
            answer: match take::<1>(&mut rest)? {
                [0] => Answer::Offer,
                [1] => Answer::Accepted,
                [2] => Answer::Taken,
                [3] => Answer::Refused,
                _ => return None,
            },
        })
    }

    /// Whether the one who sent `self` and we, who say `ours`, can run together.
    ///
    /// # Errors
    /// The difference, and what to do.
    pub fn agrees(&self, ours: &Self, peer: &Peer) -> Result<(), String> {
        if self.version != ours.version {
            let (theirs, own) = (shown(&self.version), shown(&ours.version));
            return Err(format!("{peer} is version {theirs}, this one {own}: install the same version for all"));
        }
        if (self.processes, self.to) != (ours.processes, ours.from) {
            return Err(format!(
                "{peer} has this process as number {} of {}, this one is number {} of {}: give all processes the same \
                 hosts file",
                self.to, self.processes, ours.from, ours.processes
            ));
        }
        if self.digest != ours.digest {
            return Err(format!("{peer} runs another pipeline: give all processes the same file and variables"));
        }
        if self.threads != ours.threads {
            let (theirs, own) = (self.threads, ours.threads);
            return Err(format!("{peer} has {theirs} workers, this one {own}: give all processes the same number"));
        }
        Ok(())
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// A version that came from the network, fit for a terminal.
fn shown(version: &[u8]) -> String {
    version.iter().take_while(|byte| **byte != 0).map(|byte| byte.escape_ascii().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: Hello::version(),
            digest: [7; 32],
            from: 1,
            to: 0,
            processes: 2,
            threads: 4,
            instance: u64::MAX - 1,
            purpose: Purpose::Watch,
            answer: Answer::Taken,
        }
    }

    #[test]
    fn a_hello_survives_the_wire() {
        assert_eq!(Hello::from_bytes(&hello().to_bytes()), Some(hello()));
    }

    #[test]
    fn other_bytes_are_no_hello() {
        assert_eq!(Hello::from_bytes(&[0; LENGTH]), None);
        for (index, value) in [(0, b'J'), (LENGTH - 4, 2), (LENGTH - 3, 4)] {
            let mut bytes = hello().to_bytes();
            bytes[index] = value;
            assert_eq!(Hello::from_bytes(&bytes), None, "byte {index}");
        }
    }

    #[test]
    fn a_difference_says_what_to_do() {
        let peer = Peer { process: 1, address: "b:1".into() };
        let ours = Hello { from: 0, to: 1, ..hello() };
        assert_eq!(hello().agrees(&ours, &peer), Ok(()));
        let says = |theirs: Hello, part: &str| {
            let shown = theirs.agrees(&ours, &peer).expect_err(part);
            assert!(shown.starts_with("process 1 (b:1) ") && shown.contains(part), "{shown}");
        };
        says(Hello { version: [27; 24], ..hello() }, r"is version \x1b");
        says(Hello { digest: [8; 32], ..hello() }, "runs another pipeline");
        says(Hello { threads: 2, ..hello() }, "has 2 workers, this one 4");
        says(Hello { to: 1, ..hello() }, "number 1 of 2");
        says(Hello { processes: 3, ..hello() }, "number 0 of 3");
    }
}
