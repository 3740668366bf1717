//! Copies what is used of one disk into a qcow2 image and nothing more: no fix-ups, no definition. `tools/bench`
//! measures it against `qemu-img convert`. Usage: `copy_disk SOURCE IMAGE`.
#![allow(clippy::unwrap_used)] // a measuring program, not the product

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use block::{CopyOptions, CreateOptions, Extent, Format, copy, create_image, open_source};
use volume::detect_layout;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, image] = &arguments[..] else { panic!("usage: copy_disk SOURCE IMAGE") };
    let began = Instant::now();
    let source = open_source(Path::new(source)).unwrap().source;
    let size = source.size();
    let layout = detect_layout(std::slice::from_ref(&source)).unwrap();
    let planned = began.elapsed().as_secs_f64();
    let map = layout.used(0);
    let used = map.extents(Extent::first(size));
    let mut writer = create_image(Path::new(image), Format::Qcow2, size, &CreateOptions::default()).unwrap();
    let totals = copy(source, used, &mut *writer, &CopyOptions::default(), &mut |_| ControlFlow::Continue(())).unwrap();
    let length = writer.finish().unwrap();
    println!(
        "layout in {planned:.3} s, read {}, zero {}, data {}, image {length}",
        totals.read, totals.zero, totals.data
    );
}
