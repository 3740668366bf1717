//! The cyclic redundancy checks of on-disk structures: CRC-32 (GPT, LVM2), CRC-32C (ext4, XFS, btrfs) and CRC-16 (ext4
//! group descriptors), all reflected. None of them inverts its result: each format has its own rule for that.

#[allow(clippy::cast_possible_truncation)] // the index of a table of 256
const fn table32(polynomial: u32) -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    // Each further table carries its byte one place further, for eight bytes at a time.
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let previous = tables[n - 1][i];
            tables[n][i] = previous >> 8 ^ tables[0][(previous & 0xff) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
}

static CRC32: [[u32; 256]; 8] = table32(0xedb8_8320);
static CRC32C: [[u32; 256]; 8] = table32(0x82f6_3b78);

fn update(tables: &[[u32; 256]; 8], mut crc: u32, bytes: &[u8]) -> u32 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let [a, b, c, d, e, f, g, h] = *eight;
        let [i, j, k, l] = (crc ^ u32::from_le_bytes([a, b, c, d])).to_le_bytes();
        crc = tables[7][usize::from(i)]
            ^ tables[6][usize::from(j)]
            ^ tables[5][usize::from(k)]
            ^ tables[4][usize::from(l)]
            ^ tables[3][usize::from(e)]
            ^ tables[2][usize::from(f)]
            ^ tables[1][usize::from(g)]
            ^ tables[0][usize::from(h)];
    }
    rest.iter().fold(crc, |crc, &byte| crc >> 8 ^ tables[0][usize::from(crc.to_le_bytes()[0] ^ byte)])
}

/// CRC-32 (polynomial 0x04C11DB7) continued from `crc`.
pub(crate) fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    update(&CRC32, crc, bytes)
}

/// CRC-32C (polynomial 0x1EDC6F41) continued from `crc`.
pub(crate) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    update(&CRC32C, crc, bytes)
}

/// CRC-16 (polynomial 0x8005) continued from `crc`.
pub(crate) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue_are_met() {
        let digits = b"123456789";
        assert_eq!(!crc32(!0, digits), 0xcbf4_3926);
        assert_eq!(!crc32c(!0, digits), 0xe306_9283);
        assert_eq!(crc16(0, digits), 0xbb3d);
    }
}
