//! Images that have all their room from the beginning.
#![allow(clippy::unwrap_used)] // a test fails by it

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use block::journal::{ImageIdentity, JournaledImage};
use block::{BUFFER_SIZE, Chunk, Content, CreateOptions, Extent, Format, ImageWriter, Pool};
use machine::{ByteCount, ByteOffset};

/// More than the region of one L2 table, and no whole number of clusters.
const SIZE: u64 = (512 << 20) + (80 << 20) + 512;

fn data(at: u64, byte: u8) -> Chunk {
    let mut bytes = Pool::new(1).take();
    bytes.fill(byte);
    Chunk { offset: ByteOffset(at), content: Content::Data(bytes.freeze(BUFFER_SIZE)) }
}

fn judge(path: &Path, format: Format) {
    let qemu = |arguments: &[&str]| {
        let output = Command::new("qemu-img").args(arguments).arg(path).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    if format == Format::Qcow2 {
        assert!(qemu(&["check"]).contains("No errors"));
        let map = qemu(&["map", "--output=json"]);
        assert!(map.lines().filter(|run| run.contains("start")).all(|run| run.contains("\"offset\"")), "{map}");
    }
    let metadata = path.metadata().unwrap();
    println!("{} bytes long, {} allocated", metadata.len(), metadata.blocks() * 512);
    assert!(metadata.blocks() * 512 >= SIZE, "{} blocks", metadata.blocks());
    let image = block::open_source(path).unwrap().source;
    assert_eq!(image.size().0, SIZE);
    for (at, expected) in [(0, 0), (3 << 20, 1), (4 << 20, 0), (300 << 20, 2), (520 << 20, 3), (SIZE - 1, 0)] {
        let mut byte = [9];
        image.read_at(ByteOffset(at), &mut byte).unwrap();
        assert_eq!(byte[0], expected, "at {at}");
    }
}

#[test]
fn a_full_image_has_all_its_room_however_often_its_making_was_interrupted() {
    for format in [Format::Qcow2, Format::Raw] {
        let folder = tempfile::tempdir().unwrap();
        let options = CreateOptions { full: true, ..CreateOptions::default() };
        let identity = ImageIdentity { disk: "d".into(), size: ByteCount(SIZE), format };
        let (path, journal) = (folder.path().join("image"), folder.path().join("journal"));
        let chunks = [data(3 << 20, 1), data(300 << 20, 2), data(520 << 20, 3)];
        let mut whole = JournaledImage::create(&path, &journal, &identity, &options).unwrap();
        chunks.iter().for_each(|chunk| whole.write(chunk.clone()).unwrap());
        Box::new(whole).finish().unwrap();
        judge(&path, format);

        let (again, journal) = (folder.path().join("again"), folder.path().join("again.journal"));
        let mut image = JournaledImage::create(&again, &journal, &identity, &options).unwrap();
        for chunk in chunks {
            image.write(chunk.clone()).unwrap();
            image.sync().unwrap();
            drop(image);
            image = JournaledImage::resume(&again, &journal, &identity, &options).unwrap();
            assert_eq!(image.durable(), chunk.extent().map(Extent::end).unwrap());
        }
        Box::new(image).finish().unwrap();
        judge(&again, format);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "{format:?}: byte for byte the same");
    }
}
