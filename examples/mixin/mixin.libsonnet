// The rules and dashboards of this directory as a Prometheus mixin, for those who render theirs by jsonnet. The
// files are complete without it.
local config = import 'config.libsonnet';

local groups(files) = std.flattenArrays([std.parseYaml(file).groups for file in files]);

config {
  local c = self._config,

  local adapted(rule) = rule {
    labels+: c.alertLabels,
    annotations+: c.alertAnnotations { runbook_url: c.runbookUrlPrefix + rule.annotations.runbook_url },
  },

  prometheusRules+:: { groups+: groups([importstr 'rules/octoserve.yml']) },

  prometheusAlerts+:: {
    groups+: [
      group { rules: std.map(adapted, group.rules) }
      for group in groups([
        importstr 'alerts/process.yml',
        importstr 'alerts/requests.yml',
        importstr 'alerts/storage.yml',
        importstr 'alerts/upstreams.yml',
      ])
    ],
  },

  grafanaDashboards+:: {
    [name + '.json']: dashboards[name] { tags: c.dashboardTags }
    for name in std.objectFields(dashboards)
  },

  local dashboards = {
    'octoserve-foreign': import 'dashboards/octoserve-foreign.json',
    'octoserve-overview': import 'dashboards/octoserve-overview.json',
    'octoserve-proxy': import 'dashboards/octoserve-proxy.json',
    'octoserve-pulls-and-pushes': import 'dashboards/octoserve-pulls-and-pushes.json',
    'octoserve-storage': import 'dashboards/octoserve-storage.json',
    'octoserve-uploads': import 'dashboards/octoserve-uploads.json',
    'octoserve-upstreams': import 'dashboards/octoserve-upstreams.json',
  },
}
