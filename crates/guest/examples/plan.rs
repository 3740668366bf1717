//! Prints the plan for a guest that is mounted at a folder, and with `--apply` carries it out.
//!
//! `plan FOLDER [FACTS.json] [--apply]`; the facts are a `machine::Machine`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let apply = arguments.last().is_some_and(|last| last == "--apply");
    if apply {
        arguments.pop();
    }
    let folder = arguments.first().ok_or("usage: plan FOLDER [FACTS.json] [--apply]")?;
    let machine = match arguments.get(1) {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => machine::Machine::default(),
    };
    let mut tree = guest::Directory::open(folder)?;
    let plan = guest::plan(&tree, &machine, &[], &[])?;
    print!("{plan}");
    println!("{:?}", plan.capabilities);
    if apply {
        for outcome in guest::apply(&plan, &[], &mut tree) {
            println!("{}: {:?} {}", outcome.id, outcome.state, outcome.detail);
        }
    }
    Ok(())
}
