{{- define "registry.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "registry.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "registry.labels" -}}
{{ include "registry.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "registry.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "registry.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "registry.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Whether several pods can share what the service keeps. */ -}}
{{- define "registry.shared" -}}
{{- if and .Values.database.urlSecret (or .Values.storage.url (eq .Values.persistence.accessMode "ReadWriteMany")) -}}yes{{- end -}}
{{- end }}

{{- define "registry.check" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: where the image was pushed to (`registry` alone would be another program)" -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (not (include "registry.shared" .)) -}}
{{- fail "replicas: more than one needs database.urlSecret, and storage.url or persistence.accessMode ReadWriteMany" -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (not (and .Values.database.urlSecret .Values.storage.url)) -}}
{{- fail "persistence.enabled: without a volume both database.urlSecret and storage.url are needed" -}}
{{- end -}}
{{- if and .Values.worker.enabled (not .Values.worker.tokenSecret) .Values.auth -}}
{{- fail "worker.tokenSecret: a worker needs a token: registry worker token --reusable --expires never" -}}
{{- end -}}
{{- end }}

{{- define "registry.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "registry.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What the servers and the migration job are told. */ -}}
{{- define "registry.environment" -}}
- {name: REGISTRY_HOST, value: "0.0.0.0"}
- {name: REGISTRY_PORT, value: "11434"}
- {name: REGISTRY_DATA, value: /data}
- {name: REGISTRY_LOG_JSON, value: "true"}
- {name: REGISTRY_WORKER__LOCAL, value: "off"}
- {name: REGISTRY_AUTH, value: {{ .Values.auth | quote }}}
{{- if not .Values.auth }}
- {name: REGISTRY_NO_AUTH, value: "true"}
{{- end }}
{{- with .Values.externalUrl }}
- {name: REGISTRY_EXTERNAL_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.trustedProxies }}
- {name: REGISTRY_TRUSTED_PROXIES, value: {{ join "," . | quote }}}
{{- end }}
{{- with .Values.database.urlSecret }}
- name: REGISTRY_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: url}}
{{- end }}
{{- with .Values.storage.url }}
- {name: REGISTRY_STORAGE_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.storage.keysSecret }}
- name: REGISTRY_S3__ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: access-key}}
- name: REGISTRY_S3__SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: secret-key}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
