//! Bodies that say of themselves which write of which key they are, so that whatever is read back is judged alone.
//!
//! ```text
//! magic 8 | number u64 LE | size u64 LE | FNV-1a of the key u64 LE | pseudo-random bytes of number and key
//! ```
//!
//! Invariants: two writes of the same number and key are the same bytes; any other byte, length or order is noticed.

use bytes::Bytes;

const MAGIC: &[u8; 8] = b"MDSELF\x00\x01";
/// The smallest body that can describe itself, in bytes.
pub const BODY_SIZE_MIN: usize = 32;

/// The body of write `number` of `key`, `size` bytes long.
pub fn describing_body(key: &str, number: u64, size: usize) -> Bytes {
    assert!(size >= BODY_SIZE_MIN, "a body of {size} bytes can't describe itself");
    let mut body = Vec::with_capacity(size + 8);
    body.extend_from_slice(MAGIC);
    for word in [number, size as u64, key_hash(key)] {
        body.extend_from_slice(&word.to_le_bytes());
    }
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ key_hash(key);
    while body.len() < size {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        // The low bits of such a sequence repeat soon: neighbouring stretches would look alike.
        body.extend_from_slice(&(word ^ (word >> 29)).to_le_bytes());
    }
    body.truncate(size);
    body.into()
}

/// Which write of `key` a body is.
///
/// # Errors
/// What is wrong with it, when it is not exactly the bytes of one write of that key.
pub fn number_of_body(key: &str, body: &[u8]) -> Result<u64, String> {
    if body.len() < BODY_SIZE_MIN || !body.starts_with(MAGIC) {
        let start = &body[..body.len().min(BODY_SIZE_MIN)];
        return Err(format!("{} bytes that describe nothing, starting with {}", body.len(), hex::encode(start)));
    }
    let word = |index: usize| u64::from_le_bytes(body[8 * index..8 * index + 8].try_into().expect("eight bytes"));
    let (number, size) = (word(1), word(2));
    if word(3) != key_hash(key) {
        return Err(format!("write {number} of another key"));
    }
    if size != body.len() as u64 {
        return Err(format!("{} of the {size} bytes of write {number}", body.len()));
    }
    let expected = describing_body(key, number, body.len());
    match body.iter().zip(&expected).position(|(found, expected)| found != expected) {
        None => Ok(number),
        Some(offset) => Err(format!("write {number} with a wrong byte at {offset} of {size}")),
    }
}

fn key_hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_its_write() {
        for size in [BODY_SIZE_MIN, 33, 1000, 70_001] {
            assert_eq!(number_of_body("k", &describing_body("k", 7, size)), Ok(7));
        }
    }

    #[test]
    fn any_other_bytes_are_noticed() {
        let body = describing_body("k", 7, 500).to_vec();
        for at in 0..body.len() {
            let mut flipped = body.clone();
            flipped[at] ^= 1;
            assert!(number_of_body("k", &flipped).is_err(), "a flip at {at} passed");
        }
        assert!(number_of_body("k", &body[..499]).is_err());
        assert!(number_of_body("k", b"").is_err());
        assert!(number_of_body("other", &body).is_err());
        let mut swapped = body.clone();
        swapped[100..300].rotate_left(64);
        assert!(number_of_body("k", &swapped).is_err());
    }
}
