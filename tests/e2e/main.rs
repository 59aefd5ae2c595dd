//! Tests against a real cluster, the one KUBECONFIG names: `make up` starts it and installs the chart.

mod crd_rules;
