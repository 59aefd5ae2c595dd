//! `image-factory crds`
use std::path::PathBuf;
pub fn run(_dir: Option<PathBuf>) -> anyhow::Result<()> {
    for definition in crate::crd::definitions() {
        println!("---\n{}", serde_yaml::to_string(&definition)?);
    }
    Ok(())
}
