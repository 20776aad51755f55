//! Disk content that is computed instead of stored.
//!
//! Each 8 bytes are a mixed function of the seed and of their own disk offset: a byte that lands at another offset than
//! its own differs almost surely, and content never compresses or reads as zeros.

/// The content of `seed` from disk offset `offset` on, in little-endian words of 8 bytes.
pub fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    let base = mix(seed);
    let skip = usize::try_from(offset % 8).unwrap_or(0);
    let mut word = offset / 8;
    let (head, body) = out.split_at_mut(if skip == 0 {
        0
    } else {
        out.len().min(8 - skip)
    });
    if !head.is_empty() {
        let bytes = mix(base ^ word).to_le_bytes();
        head.copy_from_slice(&bytes[skip..skip + head.len()]);
        word += 1;
    }
    let mut chunks = body.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&mix(base ^ word).to_le_bytes());
        word += 1;
    }
    let rest = chunks.into_remainder();
    let bytes = mix(base ^ word).to_le_bytes();
    let len = rest.len();
    rest.copy_from_slice(&bytes[..len]);
}

/// The content of `seed` as a new vector.
#[must_use]
pub fn bytes(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    fill(seed, offset, &mut out);
    out
}

/// The finaliser of the `SplitMix64` generator: a bijection of 64-bit words that leaves no visible structure.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_window_shows_the_same_bytes() {
        let whole = bytes(3, 0, 4096);
        for (offset, len) in [
            (0, 4096),
            (1, 7),
            (5, 100),
            (512, 512),
            (7, 1),
            (4089, 7),
            (13, 0),
        ] {
            let (at, end) = (
                usize::try_from(offset).unwrap(),
                usize::try_from(offset).unwrap() + len,
            );
            assert_eq!(bytes(3, offset, len), whole[at..end], "{offset}+{len}");
        }
        assert_ne!(bytes(4, 0, 512), whole[..512]);
        assert_ne!(whole[..512], whole[512..1024]);
    }
}
