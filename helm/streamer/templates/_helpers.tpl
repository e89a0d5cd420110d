{{- define "streamer.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $release .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "streamer.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "streamer.labels" -}}
{{ include "streamer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "streamer.kind" -}}
{{- if ne .Values.kind "auto" -}}
{{- .Values.kind -}}
{{- else -}}
{{- ternary "StatefulSet" "Deployment" (eq (default "" .Values.config.delivery) "exactly_once") -}}
{{- end -}}
{{- end -}}

{{- define "streamer.serviceAccount" -}}
{{- default (ternary (include "streamer.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "streamer.image" -}}
{{- $tag := printf "%s-%s" .Chart.AppVersion (ternary "cuda" "cpu" (gt (int .Values.gpus) 0)) -}}
{{- printf "%s:%s" .Values.image.repository (default $tag .Values.image.tag) -}}
{{- end -}}

{{- /* Waiting lets a worker finish what the device holds; the margin is for its commit and its way out. */ -}}
{{- define "streamer.gracePeriod" -}}
{{- add (ceil .Values.config.limits.drain_s) .Values.terminationMarginSeconds -}}
{{- end -}}

{{- /* What the schema cannot say: rules that look at two values. */ -}}
{{- define "streamer.check" -}}
{{- $exactly := eq (default "" .Values.config.delivery) "exactly_once" -}}
{{- $scaled := ne .Values.autoscaling.by "none" -}}
{{- $most := ternary .Values.autoscaling.maxReplicas .Values.replicas $scaled -}}
{{- if and $scaled (gt (int $most) (int .Values.topics.partitions)) -}}
{{- fail (printf "autoscaling.maxReplicas is %v and topics.partitions %v: the workers beyond would idle" $most .Values.topics.partitions) -}}
{{- end -}}
{{- if and $scaled (gt (int .Values.autoscaling.minReplicas) (int $most)) -}}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.by "hpa") (lt (int .Values.autoscaling.minReplicas) 1) -}}
{{- fail "autoscaling.minReplicas 0 takes autoscaling.by: keda" -}}
{{- end -}}
{{- if and $exactly (ne (include "streamer.kind" .) "StatefulSet") -}}
{{- fail "config.delivery: exactly_once takes kind: StatefulSet: a worker's transactional id is its pod's name, and has to stay" -}}
{{- end -}}
{{- $id := dig "kafka" "transactional_id" "" .Values.config | default "" -}}
{{- if and $exactly $id (gt (int $most) 1) (not (contains "${env:POD_NAME}" $id)) -}}
{{- fail "config.kafka.transactional_id is one for all workers, which would fence each other: leave it out, or put ${env:POD_NAME} into it" -}}
{{- end -}}
{{- if eq .Values.autoscaling.by "keda" -}}
{{- $read := list .Values.config.kafka.bootstrap_servers (dig "kafka" "group_id" "" .Values.config) (dig "topics" "input" "" .Values.config) -}}
{{- if contains "${" (join " " $read) -}}
{{- fail "autoscaling.by: keda reads config.kafka.bootstrap_servers, config.kafka.group_id and config.topics.input: it cannot follow references there" -}}
{{- end -}}
{{- end -}}
{{- $instance := dig "kafka" "consumer" "group.instance.id" "" .Values.config -}}
{{- if and $instance (gt (int $most) 1) (not (contains "${env:POD_NAME}" $instance)) -}}
{{- fail "config.kafka.consumer: group.instance.id is one for all workers, which would fence each other: put ${env:POD_NAME} into it" -}}
{{- end -}}
{{- if and (ne .Values.model.from "image") (not (hasPrefix .Values.model.mountPath (dig "model" "name" "" .Values.config))) -}}
{{- fail (printf "model.from: %s puts the model into %s: set config.model.name to it, or to a folder in it" .Values.model.from .Values.model.mountPath) -}}
{{- end -}}
{{- if and (eq .Values.model.from "claim") (not .Values.model.existingClaim) -}}
{{- fail "model.from: claim takes model.existingClaim" -}}
{{- end -}}
{{- if and (eq .Values.model.from "init") (not .Values.model.init.image) -}}
{{- fail "model.from: init takes model.init.image" -}}
{{- end -}}
{{- end -}}

{{- /*
The pod of any of streamer's commands. Takes a dict: root, args, resources, and optionally serves (it lasts, and has
an ops port), worker (it has a model and GPUs), env, configMap, serviceAccount, restartPolicy.
*/ -}}
{{- define "streamer.pod" -}}
{{- $ := .root -}}
{{- $model := and .worker (ne $.Values.model.from "image") -}}
serviceAccountName: {{ default (include "streamer.serviceAccount" $) .serviceAccount }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .restartPolicy }}
restartPolicy: {{ . }}
{{- end }}
{{- with $.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml $.Values.podSecurityContext | nindent 2 }}
{{- with $.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $.Values.tolerations (and .worker $.Values.gpus) }}
tolerations:
  {{- if and .worker $.Values.gpus }}
  - {key: {{ $.Values.gpuResource }}, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with $.Values.tolerations }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- if .serves }}
terminationGracePeriodSeconds: {{ include "streamer.gracePeriod" $ }}
{{- end }}
{{- if .worker }}
{{- with $.Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
  {{- if $.Values.topologySpreadConstraints }}
  {{- toYaml $.Values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "streamer.selectorLabels" $ | nindent 8 }}
        app.kubernetes.io/component: worker
  {{- end }}
{{- end }}
{{- if and $model (eq $.Values.model.from "init") }}
initContainers:
  - name: model
    image: {{ $.Values.model.init.image }}
    imagePullPolicy: {{ $.Values.image.pullPolicy }}
    {{- with $.Values.model.init.command }}
    command: {{ toJson . }}
    {{- end }}
    {{- with $.Values.model.init.args }}
    args: {{ toJson . }}
    {{- end }}
    {{- with include "streamer.secretEnv" $ }}{{ . | nindent 4 }}{{ end }}
    securityContext: {{- toYaml $.Values.securityContext | nindent 6 }}
    resources: {{- toYaml $.Values.model.init.resources | nindent 6 }}
    volumeMounts:
      - {name: model, mountPath: {{ $.Values.model.mountPath }}}
      - {name: tmp, mountPath: /tmp}
{{- end }}
containers:
  - name: streamer
    image: {{ include "streamer.image" $ }}
    imagePullPolicy: {{ $.Values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      # Stable in a StatefulSet: ${env:POD_NAME} is what group.instance.id takes.
      - name: POD_NAME
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      # Else every thread pool is as large as the node, and throttled.
      - name: OMP_NUM_THREADS
        valueFrom: {resourceFieldRef: {containerName: streamer, resource: limits.cpu}}
      {{- with concat $.Values.env (default list .env) }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- with include "streamer.secretEnv" $ }}{{ . | nindent 4 }}{{ end }}
    securityContext: {{- toYaml $.Values.securityContext | nindent 6 }}
    {{- $gpus := dict }}
    {{- if and .worker $.Values.gpus }}{{ $gpus = dict $.Values.gpuResource $.Values.gpus }}{{ end }}
    resources:
      requests: {{- merge (dict) $gpus (default dict .resources.requests) | toYaml | nindent 8 }}
      limits: {{- merge (dict) $gpus (default dict .resources.limits) | toYaml | nindent 8 }}
    {{- if .serves }}
    ports:
      - {name: ops, containerPort: {{ $.Values.config.ops.port }}}
    startupProbe:
      httpGet: {path: /startupz, port: ops}
      {{- toYaml $.Values.probes.startup | nindent 6 }}
    livenessProbe:
      httpGet: {path: /healthz, port: ops}
      {{- toYaml $.Values.probes.liveness | nindent 6 }}
    readinessProbe:
      httpGet: {path: /readyz, port: ops}
      {{- toYaml $.Values.probes.readiness | nindent 6 }}
    {{- end }}
    volumeMounts:
      - {name: config, mountPath: /etc/streamer, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      - {name: cache, mountPath: /var/cache/streamer}
      {{- if $model }}
      - {name: model, mountPath: {{ $.Values.model.mountPath }}, readOnly: true}
      {{- end }}
      {{- range $number, $secret := $.Values.secrets.files }}
      - {name: secret-{{ $number }}, mountPath: {{ $secret.mountPath }}, readOnly: true}
      {{- end }}
volumes:
  - name: config
    configMap: {name: {{ default (include "streamer.fullname" $) .configMap }}}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
  - name: cache
    {{- if and .worker $.Values.cache.existingClaim }}
    persistentVolumeClaim: {claimName: {{ $.Values.cache.existingClaim }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ $.Values.cache.sizeLimit }}}
    {{- end }}
  {{- if and $model (eq $.Values.model.from "claim") }}
  - name: model
    persistentVolumeClaim: {claimName: {{ $.Values.model.existingClaim }}, readOnly: true}
  {{- else if $model }}
  - name: model
    emptyDir: {sizeLimit: {{ $.Values.cache.sizeLimit }}}
  {{- end }}
  {{- range $number, $secret := $.Values.secrets.files }}
  - name: secret-{{ $number }}
    secret: {secretName: {{ $secret.existingSecret }}, defaultMode: 0440}
  {{- end }}
{{- end -}}

{{- /* The same with its metadata: the template of a workload or a job. Takes component beside. */ -}}
{{- define "streamer.template" -}}
metadata:
  labels: {{- include "streamer.selectorLabels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with .root.Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ toYaml .root.Values.config | sha256sum }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec: {{- include "streamer.pod" . | nindent 2 }}
{{- end -}}

{{- define "streamer.secretEnv" -}}
{{- with .Values.secrets.env -}}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ .existingSecret }}}
  {{- end }}
{{- end -}}
{{- end -}}
