//! What objects hold: bytes that are derived from their number, so that a wrong, swapped or cut body is noticed.

use bytes::Bytes;

/// A multiplicative hash: visits objects in an order without locality.
pub fn scatter(turn: u64) -> u64 {
    turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

/// `size` bytes that only object `number` has.
pub fn content(number: u64, size: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(size as usize + 8);
    words(number, size, |word| bytes.extend_from_slice(&word));
    bytes.truncate(size as usize);
    bytes.into()
}

/// Whether `body` is `content(number, size)`; without making that.
pub fn is_content(body: &[u8], number: u64, size: u64) -> bool {
    let (mut rest, mut same) = (body, body.len() as u64 == size);
    words(number, size, |word| {
        let (piece, behind) = rest.split_at(rest.len().min(word.len()));
        same &= *piece == word[..piece.len()];
        rest = behind;
    });
    same
}

fn words(number: u64, size: u64, mut take: impl FnMut([u8; 8])) {
    let mut word = scatter(number + 1) | 1;
    for _ in 0..size.div_ceil(8) {
        take(word.to_le_bytes());
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(number | 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_body_is_noticed() {
        for size in [0, 1, 8, 1024, 1029] {
            let right = content(7, size);
            assert!(is_content(&right, 7, size));
            assert_eq!(right.len() as u64, size);
            assert!(!is_content(&content(7, size + 1), 7, size));
            if size > 0 {
                assert!(!is_content(&content(8, size), 7, size) && !is_content(&right[1..], 7, size));
                let mut flipped = right.to_vec();
                *flipped.last_mut().unwrap() ^= 1;
                assert!(!is_content(&flipped, 7, size));
            }
        }
    }
}
