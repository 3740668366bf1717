//! A small hive, made by hand: a root with its security descriptor, in one bin.

/// Its file; the checksum is wrong.
pub fn small_hive() -> Vec<u8> {
    let mut file = vec![0; 8192];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"regf\x03\0\0\0\x02\0\0\0");
    put(20, &[1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0, 0, 16, 0, 0, 1]);
    put(4096, b"hbin\0\0\0\0\0\x10\0\0");
    put(4128, &(-88i32).to_le_bytes());
    put(4132, b"nk\x2c\0");
    for none in [16, 28, 32, 40, 48] {
        put(4132 + none, &[0xff; 4]);
    }
    put(4132 + 44, &120u32.to_le_bytes());
    put(4132 + 72, b"\x04\0\0\0ROOT");
    put(4216, &(-48i32).to_le_bytes());
    put(4220, b"sk\0\0\x78\0\0\0\x78\0\0\0\x01\0\0\0\x14\0\0\0\x01\0\0\x80");
    put(4264, &(4096u32 - 168).to_le_bytes());
    file
}
