#!/bin/sh
# Writes what Kubernetes needs of the mixin: its rules as one PrometheusRule, and a kustomization that
# makes a ConfigMap of each dashboard. Run it after each change of examples/mixin.
#
#   examples/kubernetes/monitoring.sh [DIRECTORY OF EXAMPLES]
set -eu
cd "${1:-"$(dirname "$0")/.."}"

{
    echo '# Written by examples/kubernetes/monitoring.sh from examples/mixin.'
    echo 'apiVersion: monitoring.coreos.com/v1'
    echo 'kind: PrometheusRule'
    echo 'metadata:'
    echo '  name: octoserve'
    echo 'spec:'
    echo '  groups:'
    for file in mixin/rules/*.y*ml mixin/alerts/*.y*ml; do
        [ -e "$file" ] || continue
        # Everything below the only key of a rule file, indented to its new place.
        sed -e '1,/^groups:/d' -e '/^---$/d' -e 's/^\(.\)/  \1/' "$file"
    done
} >kubernetes/overlays/monitoring/prometheusrule.yaml

{
    echo '# Written by examples/kubernetes/monitoring.sh: a ConfigMap of each dashboard, for the sidecar of Grafana.'
    echo 'apiVersion: kustomize.config.k8s.io/v1beta1'
    echo 'kind: Kustomization'
    echo 'generatorOptions:'
    echo '  disableNameSuffixHash: true'
    echo '  labels: {grafana_dashboard: "1"}'
    echo '  annotations: {grafana_folder: octoserve}'
    echo 'configMapGenerator:'
    for file in mixin/dashboards/*.json; do
        [ -e "$file" ] || continue
        name=$(basename "$file" .json)
        echo "  - {name: dashboard-$name, files: [dashboards/$name.json]}"
    done
} >mixin/kustomization.yaml
