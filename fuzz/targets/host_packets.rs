#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| azure_vm_fd::fuzzing::host_packets(data));
