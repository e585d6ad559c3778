#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| empath_fuzz::authentication(data));
