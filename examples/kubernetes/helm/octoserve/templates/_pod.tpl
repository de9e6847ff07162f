{{- /* The pod of a Deployment and of a StatefulSet. */ -}}
{{- define "octoserve.pod" -}}
metadata:
  annotations:
    # A new configuration starts new pods.
    checksum/config: {{ .Values.config | toYaml | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "octoserve.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "octoserve.serviceAccountName" . }}
  automountServiceAccountToken: false
  # The variables that Kubernetes makes of a service named `octoserve` (OCTOSERVE_PORT, …) would be read as
  # keys of the configuration, and refused.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: octoserve
      image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [--config, /etc/octoserve/octoserve.yaml]
      env:
        # The image sets these for runs without a file. Empty, they leave it to the file.
        - {name: OCTOSERVE_LISTEN, value: ''}
        - {name: OCTOSERVE_METRICS_LISTEN, value: ''}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 5000}
        - {name: metrics, containerPort: 5001}
      startupProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 2
        failureThreshold: {{ .Values.startupProbe.failureThreshold }}
      # Not /readyz: a restart mends no upstream.
      livenessProbe:
        httpGet: {path: /livez, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
      readinessProbe:
        httpGet: {path: /readyz, port: metrics}
        periodSeconds: 5
        timeoutSeconds: 2
      lifecycle:
        # A drain refuses new requests: before it begins, the endpoints must have forgotten the pod.
        preStop: {sleep: {seconds: {{ .Values.preStopSeconds }}}}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/octoserve, readOnly: true}
        - {name: run, mountPath: /run/octoserve}
        {{- if .Values.existingSecret }}
        - {name: secrets, mountPath: /run/secrets/octoserve, readOnly: true}
        {{- end }}
        {{- if .Values.persistence.enabled }}
        - {name: data, mountPath: /data}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "octoserve.fullname" . }}}
    - name: run
      emptyDir: {medium: Memory, sizeLimit: 1Mi}
    {{- with .Values.existingSecret }}
    - name: secrets
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- if and .Values.persistence.enabled .Values.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim }}}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
