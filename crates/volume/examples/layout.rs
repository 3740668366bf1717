//! Prints what lies on the disks whose raw images are named: `cargo run -p volume --example layout disk.raw`.
#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let disks: Vec<_> = std::env::args().skip(1).map(|path| support::disk(path.as_ref())).collect();
    let layout = match volume::detect_layout(&disks) {
        Ok(layout) => layout,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    };
    for (index, found) in layout.disks().iter().enumerate() {
        println!("{found:#?}");
        let (mut count, mut used) = (0, 0);
        for extent in layout.used(index).extents(block::Extent::first(disks[index].size())) {
            match extent {
                Ok(extent) => (count, used) = (count + 1, used + extent.length().0),
                Err(error) => eprintln!("{error}"),
            }
        }
        println!("disk {index}: {used} bytes used of {} in {count} extents", disks[index].size().0);
    }
    for lv in layout.logical_volumes() {
        println!("{} {} {:?}", lv.name, lv.size, lv.segments);
    }
    println!("firmware {:?}", layout.firmware());
    for warning in layout.warnings() {
        println!("{warning}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}
