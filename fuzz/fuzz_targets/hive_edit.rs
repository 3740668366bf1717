//! Any changes to any hive that the check finds whole: each is made or refused, and the hive is whole afterwards, or every
//! byte as before.
#![no_main]

use guest::windows::hive::{Data, Filetime, Hive, Unfinished, ValueType};

#[path = "../small_hive.rs"]
mod small_hive;

type Change = (u8, u8, u8, u16);

libfuzzer_sys::fuzz_target!(|input: (Vec<Change>, bool, u8, Vec<(u16, u8)>)| {
    let (changes, is_kept, minor, patches) = input;
    let mut bytes = small_hive::small_hive();
    bytes[24] = 3 + minor % 3;
    for (at, byte) in patches.into_iter().take(64) {
        bytes[usize::from(at % 8192)] = byte;
    }
    let Ok(mut hive) = Hive::load(bytes, &[], Unfinished::ReadAsItIs) else { return };
    if !hive.check().is_whole() {
        return;
    }
    let before = hive.bins_bytes().to_vec();
    let mut is_broken = false;
    {
        let Ok(mut edit) = hive.edit(Filetime(1)) else { return };
        for (what, key, name, length) in changes.into_iter().take(200) {
            let path = match key % 4 {
                0 => format!("a{key}"),
                1 => format!("a{key}\\Ж{name}\\c"),
                2 => String::new(),
                _ => format!("many\\{key}-{name}"),
            };
            let data = Data::new(ValueType(u32::from(name % 12)), vec![what; usize::from(length)]);
            let result = match what % 8 {
                0..=2 => edit.create_key(&path).map(drop),
                3 => edit.delete_key(&path).map(drop),
                4 => edit.delete_value(&path, &format!("v{name}")).map(drop),
                5 => edit.set_security(&path, &data.bytes).map(drop),
                6 => edit.set_class(&path, &format!("class {length}")).map(drop),
                _ => edit.set_value(&path, &format!("v{name}"), &data).map(drop),
            };
            // A key that is not there is an ordinary answer, which ends the edit.
            if result.is_err() {
                is_broken = true;
                break;
            }
        }
        if is_kept {
            assert_eq!(edit.commit().is_err(), is_broken);
        }
    }
    if !is_kept || is_broken {
        assert!(hive.bins_bytes() == before);
        return;
    }
    let check = hive.check();
    assert!(check.is_whole(), "{check:?}");
    let file = hive.to_file(Filetime(2));
    let again = Hive::load(file, &[], Unfinished::Refuse).expect("what was written is read");
    assert_eq!(again.check().keys, check.keys);
});
