//! How randomness is drawn from the beacon and the ticket chain: `blake2b256(tag || blake2b256(base) || round || entropy)`.

/// The 32 bytes for `tag` at `round`. `base` is a beacon entry's data or a ticket's VRF proof; integers are big-endian.
pub fn draw(base: &[u8], tag: i64, round: i64, entropy: &[u8]) -> [u8; 32] {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    state.update(&tag.to_be_bytes());
    state.update(&blake2b256(base));
    state.update(&round.to_be_bytes());
    state.update(entropy);
    into_array(state.finalize())
}

/// The chain's hash.
pub fn blake2b256(bytes: &[u8]) -> [u8; 32] {
    into_array(blake2b_simd::Params::new().hash_length(32).hash(bytes))
}

/// A proof's randomness must be an element of the scalar field: the two top bits of the last byte are cleared.
pub fn fr32_safe(mut randomness: [u8; 32]) -> [u8; 32] {
    randomness[31] &= 0x3f;
    randomness
}

fn into_array(hash: blake2b_simd::Hash) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(hash.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python's hashlib.blake2b(digest_size=32).
    #[test]
    fn draws_what_an_independent_blake2b_gives() {
        for (base, tag, round, entropy, want) in [
            (&b"base"[..], 8, 2, &b""[..], "d09e224127e27de4579dc0a20638b425fddea4632e63f114b02eb9847abfaa54"),
            (b"", 1, -1, b"entropy", "dec8c9baef3a834c533bbba168ba85306225ab716af158ceb4ad61a3e8cbb8ac"),
            (
                &[0xff; 96],
                9,
                i64::MAX,
                &[0, 0xe8, 0x07],
                "53c98a81f34cf52f2c6f0e8b9f807d5162fe67b2de263ae2954e9d15a8e4859e",
            ),
        ] {
            assert_eq!(hex::encode(draw(base, tag, round, entropy)), want);
        }
    }

    #[test]
    fn the_top_two_bits_are_cleared_and_nothing_else() {
        let safe = fr32_safe([0xff; 32]);
        assert_eq!((safe[30], safe[31]), (0xff, 0x3f));
        assert_eq!(fr32_safe([0x3f; 32]), [0x3f; 32]);
    }
}
