//! Big-endian reads that answer `None` instead of panicking when the bytes are not there.

/// The byte at `at`.
#[inline]
pub(crate) fn u8_at(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

/// The 16-bit number that starts at `at`.
#[inline]
pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    let bytes = data.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*bytes))
}

/// The 32-bit number that starts at `at`.
#[inline]
pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Takes a vector off the front of `rest`: a length of `width` bytes (1 or 2), then that many bytes.
#[inline]
pub(crate) fn take_vector<'a>(rest: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let len = match width {
        1 => usize::from(u8_at(rest, 0)?),
        _ => usize::from(u16_at(rest, 0)?),
    };
    let vector = rest.get(width..width + len)?;
    *rest = &rest[width + len..];
    Some(vector)
}

/// The big-endian 16-bit numbers of `list`; an odd last byte is left out.
pub(crate) fn u16s(list: &[u8]) -> impl Iterator<Item = u16> + '_ {
    list.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair))
}
