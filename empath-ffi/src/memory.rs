//! The memory of the process.

/// Gives what was freed back to the system, where the C library can do that.
///
/// glibc keeps freed memory below the last block that is in use: after a flood of clients that is nearly all of it. This
/// takes milliseconds, and the lock of one arena at a time.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            /// `malloc_trim(3)`
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: it is thread-safe, takes any number, and touches nothing but memory that glibc itself has as free.
        let _ = unsafe { malloc_trim(0) };
    }
}

/// Keeps the C library from setting aside address space for every thread that allocates.
///
/// glibc gives threads arenas of 64 MiB each, up to eight for a processor. No memory is in them until it is used, but a
/// limit of the address space counts them. Those that there are stay, and threads share them.
pub fn share_arenas() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            /// `mallopt(3)`
            fn mallopt(parameter: std::ffi::c_int, value: std::ffi::c_int) -> std::ffi::c_int;
        }
        /// From `malloc.h`.
        const M_ARENA_MAX: std::ffi::c_int = -8;
        // SAFETY: it is thread-safe, and changes nothing but how later allocations are made.
        let _ = unsafe { mallopt(M_ARENA_MAX, 2) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Resident pages of 4 KiB.
    fn resident() -> usize {
        fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    #[cfg_attr(not(target_env = "gnu"), ignore = "nothing is done")]
    fn memory_below_a_block_in_use_is_given_back() {
        let before = resident();
        let blocks: Vec<_> = (0..30_000).map(|_| vec![1_u8; 4000]).collect();
        let last = vec![1_u8; 4000];
        assert!(resident() > before + 25_000);
        drop(blocks);
        give_back();
        assert!(resident() < before + 5_000);
        drop(last);
    }
}
