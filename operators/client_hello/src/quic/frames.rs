//! The frames that an Initial packet may hold (RFC 9000 sections 12.4 and 19).

use super::packet::varint;

/// A frame as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// PADDING, PING, ACK or CONNECTION_CLOSE.
    Other,
    /// Bytes of the handshake.
    Crypto { offset: u64, data: &'a [u8] },
}

/// The frames of a payload; ends early at one that is not allowed or not all there.
pub(crate) struct Frames<'a>(pub &'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (data, mut at) = (self.0, 0);
        let kind = varint(data, &mut at)?;
        let frame = match kind {
            0 => {
                at += data[at..].iter().take_while(|byte| **byte == 0).count();
                Frame::Other
            }
            1 => Frame::Other,
            2 | 3 => {
                let [_, _, ranges, _] = [(); 4].map(|()| varint(data, &mut at));
                let numbers = ranges?.checked_mul(2)?.checked_add(if kind == 3 { 3 } else { 0 })?;
                for _ in 0..numbers {
                    varint(data, &mut at)?;
                }
                Frame::Other
            }
            6 => {
                let offset = varint(data, &mut at)?;
                let len = usize::try_from(varint(data, &mut at)?).ok()?;
                let content = data.get(at..at.checked_add(len)?)?;
                at += len;
                Frame::Crypto { offset, data: content }
            }
            0x1c => {
                varint(data, &mut at)?;
                varint(data, &mut at)?;
                at = at.checked_add(usize::try_from(varint(data, &mut at)?).ok()?)?;
                Frame::Other
            }
            _ => return None,
        };
        self.0 = data.get(at..)?;
        Some(frame)
    }
}
