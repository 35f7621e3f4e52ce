{{/* The name of everything in this release; short, for KubeRay adds to it. */}}
{{- define "agentic-ray.name" -}}
{{- if contains "agentic-ray" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-agentic-ray" .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every resource and pod. */}}
{{- define "agentic-ray.labels" -}}
app.kubernetes.io/part-of: {{ include "agentic-ray.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "agentic-ray.secret" -}}
{{- .Values.token.existingSecret | default (include "agentic-ray.name" .) -}}
{{- end -}}

{{- define "agentic-ray.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "agentic-ray.gpuImage" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.gpuTag | default (printf "%s-cuda12" $tag)) -}}
{{- end -}}

{{- define "agentic-ray.redisAddress" -}}
{{- .Values.gcsFaultTolerance.redisAddress | default (printf "%s-redis:6379" (include "agentic-ray.name" .)) -}}
{{- end -}}

{{- define "agentic-ray.ownRedis" -}}
{{- if and .Values.gcsFaultTolerance.enabled (not .Values.gcsFaultTolerance.redisAddress) -}}yes{{- end -}}
{{- end -}}

{{/* Nobody in our pods is root. */}}
{{- define "agentic-ray.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "agentic-ray.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "agentic-ray.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where Ray may write: its sessions, its home, and shared memory of the size given. */}}
{{- define "agentic-ray.mounts" -}}
- name: scratch
  mountPath: /tmp
- name: home
  mountPath: /home/ray
- name: shm
  mountPath: /dev/shm
{{- end -}}

{{- define "agentic-ray.volumes" -}}
- name: scratch
  emptyDir: {}
- name: home
  emptyDir: {}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ . }}
{{- end -}}
