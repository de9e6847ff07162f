{
  _config+:: {
    // Labels that every alert gets, such as { team: 'platform' }.
    alertLabels: {},

    // Annotations that every alert gets.
    alertAnnotations: {},

    // Where docs/runbooks can be read: it comes before each runbook_url, with a slash at its end.
    runbookUrlPrefix: '',

    // The tags of the dashboards.
    dashboardTags: ['octoserve'],
  },
}
