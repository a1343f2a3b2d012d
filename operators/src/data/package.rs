//! Files of a package of npm: a tar archive, compressed with gzip, of which all names begin with `package/`.

use std::collections::BTreeMap;
use std::io::{self, Read};

use flate2::read::GzDecoder;

/// The most bytes of one file, and of all together.
const MOST_BYTES: u64 = 512 << 20;
const MOST_TOTAL: u64 = 2 << 30;

/// The size of a header, and what contents are filled up to.
const BLOCK: u64 = 512;

/// Whether a content is compressed with gzip.
pub(super) fn is_one(content: &[u8]) -> bool {
    content.starts_with(b"\x1f\x8b")
}

/// The wanted files of an archive, by name.
///
/// # Errors
/// If one is missing, or the archive is damaged.
pub(super) fn members(archive: &[u8], wanted: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut reader = GzDecoder::new(archive).take(MOST_TOTAL);
    let damaged = |error: io::Error| format!("the archive is damaged: {error}");
    let mut found = BTreeMap::new();
    let mut header = [0; BLOCK as usize];
    while found.len() < wanted.len() {
        // An archive may end without its last blocks.
        if reader.read(&mut header[..1]).map_err(damaged)? == 0 {
            break;
        }
        reader.read_exact(&mut header[1..]).map_err(damaged)?;
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = size(&header).ok_or("the archive is damaged: a file has no size")?;
        let name = name(&header);
        let is_file = matches!(header[156], b'0' | 0);
        let filling = size.next_multiple_of(BLOCK) - size;
        let skipped = match wanted.iter().find(|wanted| is_file && **wanted == name) {
            Some(_) if size > MOST_BYTES => return Err(format!("`{name}` has more than {MOST_BYTES} bytes")),
            Some(_) => {
                let mut content = Vec::new();
                (&mut reader).take(size).read_to_end(&mut content).map_err(damaged)?;
                if content.len() as u64 != size {
                    return Err(format!("the archive is damaged: `{name}` is cut off"));
                }
                found.insert(name, content);
                filling
            }
            None => size.saturating_add(filling),
        };
        io::copy(&mut (&mut reader).take(skipped), &mut io::sink()).map_err(damaged)?;
    }
    // The checksum stands at the end.
    io::copy(&mut reader, &mut io::sink()).map_err(damaged)?;
    match wanted.iter().find(|wanted| !found.contains_key(**wanted)) {
        Some(missing) => Err(format!("the archive has no file `{missing}`")),
        None => Ok(found),
    }
}

/// The name in a header, without the folder that all are in.
fn name(header: &[u8; BLOCK as usize]) -> String {
    let name = header[..100].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    name.split_once('/').map_or("", |(_, name)| name).to_owned()
}

/// The size in a header: octal digits.
fn size(header: &[u8; BLOCK as usize]) -> Option<u64> {
    let text = std::str::from_utf8(&header[124..136]).ok()?;
    let digits = text.trim_matches(|c| c == '\0' || c == ' ');
    u64::from_str_radix(digits, 8).ok().filter(|size| *size <= MOST_TOTAL)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        for (name, content) in files {
            let mut header = [0; BLOCK as usize];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
            header[156] = b'0';
            out.write_all(&header).expect("written");
            out.write_all(content).expect("written");
            out.write_all(&vec![0; content.len().next_multiple_of(512) - content.len()]).expect("written");
        }
        out.write_all(&[0; 1024]).expect("written");
        out.finish().expect("written")
    }

    #[test]
    fn files_are_found_by_name() {
        let archive =
            archive(&[("package/a.csv", b"1,2"), ("package/sub/b", &[7; 600]), ("package/package.json", b"{}")]);
        let found = members(&archive, &["package.json", "sub/b"]).expect("there");
        assert_eq!((found["package.json"].as_slice(), found["sub/b"].len()), (b"{}".as_slice(), 600));
        assert_eq!(members(&archive, &["b"]), Err("the archive has no file `b`".to_owned()));
        assert!(is_one(&archive) && !is_one(b"1.0.0.0,1.0.0.9,1,x"));
    }

    #[test]
    fn damaged_archives_are_refused() {
        let whole = archive(&[("package/a.csv", &[b'x'; 3000])]);
        for cut in 1..whole.len() {
            assert!(members(&whole[..cut], &["a.csv"]).is_err(), "{cut}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            // The checksum of gzip does not cover its header.
            if let Ok(found) = members(&damaged, &["a.csv"]) {
                assert!(at < 10 && found["a.csv"].len() == 3000, "{at}");
            }
        }
    }
}
