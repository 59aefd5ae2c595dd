{{/* The name of everything in the release: its own name, with the chart's unless that is part of it. */}}
{{- define "image-factory.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "image-factory.selector" -}}
app.kubernetes.io/name: image-factory
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "image-factory.labels" -}}
{{ include "image-factory.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "image-factory.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The Secret with the database's address, and the one way to name it wrongly. */}}
{{- define "image-factory.databaseSecret" -}}
{{- if and .Values.database.url .Values.database.existingSecret -}}
{{- fail "database.url and database.existingSecret are both set: keep one of them" -}}
{{- else if .Values.database.existingSecret -}}
{{- .Values.database.existingSecret -}}
{{- else if .Values.database.url -}}
{{- include "image-factory.name" . }}-database
{{- else -}}
{{- fail "no database: set database.url to the address of a Postgres, or database.existingSecret to the name of a Secret that holds it" -}}
{{- end -}}
{{- end -}}


{{/* The API version of policies that change what is applied; empty where the cluster has none, or none are wanted. */}}
{{- define "image-factory.mutatingPolicies" -}}
{{- if .Values.recordUsers -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
admissionregistration.k8s.io/v1
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy" -}}
admissionregistration.k8s.io/v1beta1
{{- end -}}
{{- end -}}
{{- end -}}
