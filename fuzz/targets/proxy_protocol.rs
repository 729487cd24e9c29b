#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::proxy_protocol::check(input));
