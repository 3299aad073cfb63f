//! How the network draws randomness from a ticket or a beacon entry (`chain/rand`).

/// `blake2b256(tag || blake2b256(base) || round || entropy)`, integers big endian.
pub fn draw(base: &[u8], tag: i64, round: i64, entropy: &[u8]) -> [u8; 32] {
    let mut state = blake2b_simd::Params::new().hash_length(32).to_state();
    state.update(&tag.to_be_bytes()).update(&blake2b256(base)).update(&round.to_be_bytes()).update(entropy);
    let mut out = [0; 32];
    out.copy_from_slice(state.finalize().as_bytes());
    out
}

fn blake2b256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(blake2b_simd::Params::new().hash_length(32).hash(bytes).as_bytes());
    out
}
