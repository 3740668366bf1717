//! "INF Manufacturer Section" and "INF Models Section": which devices a file is for on a release of Windows.

use serde::Serialize;

use super::{Entry, Inf, Section, Target, Texts};
use crate::Result;
use crate::windows::Release;

/// The models section that a release takes for one manufacturer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// Name of the manufacturer.
    pub manufacturer: String,
    /// The section's name, with its decoration.
    pub section: String,
    /// The decoration that was the closest; the default one for a section without.
    pub target: Target,
    /// Devices in it; none where the file excludes this release with an empty section.
    pub models: Vec<Model>,
}

/// An entry of a models section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// What the device is called.
    pub description: String,
    /// The section that installs it, without a platform's extension.
    pub install_section: String,
    /// The hardware id; empty where only compatible ids are given.
    pub hardware_id: String,
    /// Compatible ids, the most specific one first.
    pub compatible_ids: Vec<String>,
}

/// One line of `[Manufacturer]`.
struct Manufacturer {
    name: String,
    models: String,
    /// Decorations as they are written, with what they mean; what Windows does not know is left out.
    targets: Vec<(String, Target)>,
}

impl Inf {
    /// The devices of each manufacturer for a release, by the closest decoration.
    ///
    /// # Errors
    /// [`crate::ErrorKind::TooLarge`] for a file whose texts are more than 32 MiB.
    pub fn models_for(&self, release: &Release) -> Result<Vec<Models>> {
        let mut texts = self.texts();
        let mut all = Vec::new();
        for manufacturer in manufacturers(self, &mut texts)? {
            let undecorated = (manufacturer.models.clone(), Target::default());
            let decorated = manufacturer.targets.into_iter();
            let named = decorated.map(|(written, target)| (format!("{}.{written}", manufacturer.models), target));
            let taken = named.chain([undecorated]).filter(|(_, target)| target.takes(release));
            // The first of equally close ones, as they are listed.
            let Some((name, target)) = taken.min_by_key(|(_, target)| target.distance()) else { continue };
            let Some(section) = self.section(&name) else { continue };
            let models = models(section, &mut texts)?;
            all.push(Models { manufacturer: manufacturer.name, section: section.name.clone(), target, models });
        }
        Ok(all)
    }

    /// Every decoration that `[Manufacturer]` has, for whoever asks which releases a file is for at all.
    ///
    /// # Errors
    /// As [`Inf::models_for`].
    pub fn targets(&self) -> Result<Vec<Target>> {
        let mut all = Vec::new();
        for manufacturer in manufacturers(self, &mut self.texts())? {
            if self.section(&manufacturer.models).is_some() {
                all.push(Target::default());
            }
            let present = |written: &str| self.section(&format!("{}.{written}", manufacturer.models));
            let filled = |written: &str| present(written).is_some_and(|section| !section.entries.is_empty());
            all.extend(
                manufacturer.targets.iter().filter(|(written, _)| filled(written)).map(|(_, target)| target.clone()),
            );
        }
        Ok(all)
    }
}

fn manufacturers(inf: &Inf, texts: &mut Texts<'_>) -> Result<Vec<Manufacturer>> {
    let mut all = Vec::new();
    let entries = inf.section("Manufacturer").map_or(&[][..], |section| section.entries.as_slice());
    for entry in entries {
        let first = texts.value(entry, 0)?;
        let name = match &entry.key {
            Some(key) => texts.expand(key)?,
            // A name alone is that of its section too.
            None => first.clone(),
        };
        let models = if first.is_empty() { name.clone() } else { first };
        let mut targets = Vec::new();
        for at in 1..entry.values.len() {
            let written = texts.value(entry, at)?;
            targets.extend(Target::parse(&written).map(|target| (written, target)));
        }
        all.push(Manufacturer { name, models, targets });
    }
    Ok(all)
}

fn models(section: &Section, texts: &mut Texts<'_>) -> Result<Vec<Model>> {
    let mut models = Vec::new();
    for entry in &section.entries {
        let Entry { key: Some(description), values, .. } = entry else { continue };
        let mut compatible_ids = Vec::new();
        for at in 2..values.len() {
            compatible_ids.extend(texts.present(entry, at)?);
        }
        models.push(Model {
            description: texts.expand(description)?,
            install_section: texts.value(entry, 0)?,
            hardware_id: texts.value(entry, 1)?,
            compatible_ids,
        });
    }
    Ok(models)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::Architecture;

    /// Name of the models section that a release takes.
    fn section_for(manufacturer: &str, sections: &[&str], release: &str, architecture: Architecture) -> Option<String> {
        let sections: String = sections.iter().map(|name| format!("[{name}]\nd = i, id\n")).collect();
        let inf = Inf::parse(format!("[Manufacturer]\n{manufacturer}\n{sections}").as_bytes()).unwrap();
        let models = inf.models_for(&Release::parse(release, architecture).unwrap()).unwrap();
        models.into_iter().next().map(|models| models.section)
    }

    /// The examples of the documentation.
    #[test]
    fn the_closest_decoration_is_taken() {
        let (x86, amd64) = (Architecture::X86, Architecture::Amd64);
        let four = ["FooMfg.NT", "FooMfg.NT.5", "FooMfg.NT.5.5", "FooMfg.NT....0x80"];
        let taken = section_for("m = FooMfg, NT, NT.5, NT.5.5, NT....0x80", &four, "xp", x86);
        assert_eq!(taken.as_deref(), Some("FooMfg.NT.5"));
        let two = ["FooMfg.NTx86....0x80", "FooMfg.NTamd64"];
        let line = "m = FooMfg, NTx86....0x80, NTamd64";
        assert_eq!(section_for(line, &two, "7", amd64).as_deref(), Some("FooMfg.NTamd64"));
        assert_eq!(section_for(line, &two, "7", x86), None);
        let one = ["MyName", "MyName.NTx86.5.1"];
        assert_eq!(section_for("m = MyName,NTx86.5.1", &one, "5.0.2195", x86).as_deref(), Some("MyName"));
        assert_eq!(section_for("m = MyName,NTx86.5.1", &one, "7", x86).as_deref(), Some("MyName.NTx86.5.1"));
        // Without an architecture it is for x86 alone, since Server 2003.
        assert_eq!(section_for("m = MyName", &one, "7", amd64), None);
        let build = ["S.ntamd64", "S.NTamd64.10.0...25319"];
        let line = "m = S, NTamd64, NTamd64.10.0...25319";
        assert_eq!(section_for(line, &build, "10.0.17763", amd64).as_deref(), Some("S.ntamd64"));
        assert_eq!(section_for(line, &build, "2025", amd64).as_deref(), Some("S.NTamd64.10.0...25319"));
    }

    #[test]
    fn an_empty_section_excludes_a_release() {
        let text = "[Manufacturer]\n%m% = S,NTx86.6.0,NTx86.5.1,\n[S.NTx86.6.0]\n[S.NTx86.5.1]\n\"a, b\" = i, id, c1,, c2\n\
                    [Strings]\nm=\"Maker\"";
        let inf = Inf::parse(text.as_bytes()).unwrap();
        let at =
            |release: &str| inf.models_for(&Release::parse(release, Architecture::X86).unwrap()).unwrap().remove(0);
        assert_eq!((at("7").section.as_str(), at("7").models.len()), ("S.NTx86.6.0", 0));
        let model = Model {
            description: "a, b".into(),
            install_section: "i".into(),
            hardware_id: "id".into(),
            compatible_ids: vec!["c1".into(), "c2".into()],
        };
        assert_eq!((at("xp").manufacturer.as_str(), at("xp").models), ("Maker", vec![model]));
        assert_eq!(inf.targets().unwrap(), [Target::parse("NTx86.5.1").unwrap()]);
    }

    #[test]
    fn a_name_alone_is_its_own_section() {
        let inf = Inf::parse(b"[Manufacturer]\nContoso\n[Contoso]\nx = i, id\n").unwrap();
        let models = inf.models_for(&Release::parse("xp", Architecture::X86).unwrap()).unwrap();
        assert_eq!((models[0].manufacturer.as_str(), models[0].models.len()), ("Contoso", 1));
    }
}
