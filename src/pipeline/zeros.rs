//! Telling zeros from data at the speed of memory.

/// Bytes per step: wide enough for the compiler's vector code, small enough to stop early on data.
const STEP: usize = 128;

/// Whether all bytes are zero (also if there are none).
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    // A fold without a branch inside the step is what the compiler turns into vector instructions.
    steps
        .iter()
        .all(|step| step.iter().fold(0, |sum, byte| sum | byte) == 0)
        && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_set_bit_is_seen_anywhere() {
        for len in [0, 1, 127, 128, 129, 512, 1000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes), "{len} zeros");
            for at in 0..len {
                bytes[at] = 1 << (at % 8);
                assert!(!is_zero(&bytes), "bit set in byte {at} of {len}");
                bytes[at] = 0;
            }
        }
    }
}
