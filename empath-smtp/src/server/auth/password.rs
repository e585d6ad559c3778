use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{self, phc::PasswordHash},
};
use aws_lc_rs::constant_time;

/// Room in a block of memory that glibc gives back as soon as it is freed. Smaller ones (19 MiB is usual here) it keeps
/// for each thread that had one once, and hundreds of MiB would be lost. Pages that are not touched cost nothing.
const ROOM: usize = 33 * 1024;

/// Whether it is the password of an argon2id hash. This takes time and memory as the hash says.
pub(super) fn verify(password: &[u8], hash: &PasswordHash) -> Result<bool, password_hash::Error> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Ok(false);
    };
    let params = Params::try_from(hash)?;
    let mut memory = Vec::with_capacity(params.block_count().max(ROOM));
    memory.resize(params.block_count(), Block::new());
    let mut computed = vec![0; expected.len()];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into_with_memory(
        password,
        salt,
        &mut computed,
        &mut memory,
    )?;
    Ok(constant_time::verify_slices_are_equal(&computed, expected.as_bytes()).is_ok())
}
