#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| azure_vm_fd::fuzzing::java_regex(data));
