{{/* The chart's name, as labels carry it. */}}
{{- define "autotuner.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The name of objects: the release's, with the chart's appended unless it is in it. 43 characters leave
room for the longest suffix within the 63 of a name that becomes a label. */}}
{{- define "autotuner.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else if contains (include "autotuner.name" .) .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "autotuner.name" .) | trunc 43 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The name of an object in `namespace` ("-": cluster-scoped; none: the release's). Outside of the release's
namespace, a release of the same name in another namespace may have such an object, too.
Call with (dict "root" $ "namespace" ...). */}}
{{- define "autotuner.nameIn" -}}
{{- $name := include "autotuner.fullname" .root -}}
{{- if has (.namespace | default "") (list "" .root.Release.Namespace) -}}
{{- $name -}}
{{- else -}}
{{- printf "%s-%s" $name .root.Release.Namespace -}}
{{- end -}}
{{- end }}

{{/* Labels that never change: a Deployment's selector is immutable. */}}
{{- define "autotuner.selectorLabels" -}}
app.kubernetes.io/name: {{ include "autotuner.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "autotuner.labels" -}}
{{- $own := dict
  "app.kubernetes.io/name" (include "autotuner.name" .)
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/component" "controller"
  "app.kubernetes.io/part-of" "autotuner"
  "app.kubernetes.io/version" (.Chart.AppVersion | replace "+" "_" | trunc 63)
  "app.kubernetes.io/managed-by" .Release.Service
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
-}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end }}

{{/* Metadata of an object. Call with (dict "root" $ "name" ... "namespace" ... "labels" ... "annotations" ...);
all but root are optional; no namespace: the release's; "-": cluster-scoped. */}}
{{- define "autotuner.metadata" -}}
{{- $root := .root -}}
name: {{ .name | default (include "autotuner.fullname" $root) }}
{{- if ne (.namespace | default "") "-" }}
namespace: {{ .namespace | default $root.Release.Namespace }}
{{- end }}
labels:
  {{- merge (include "autotuner.labels" $root | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "autotuner.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "autotuner.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "autotuner.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The controller's file: the settings in `config`, and those that follow from other values. */}}
{{- define "autotuner.config" -}}
{{- $derived := dict
  "namespaces" .Values.namespaces
  "kinds" .Values.kinds
  "http_port" (int .Values.httpPort)
  "leader_election" .Values.leaderElection.enabled
-}}
{{- if .Values.pages.enabled -}}
{{- if eq (int .Values.pages.port) (int .Values.httpPort) -}}
{{- fail (printf "pages.port and httpPort are both %d: choose two ports" (int .Values.httpPort)) -}}
{{- end -}}
{{- $_ := set $derived "pages_port" (int .Values.pages.port) -}}
{{- $_ := set $derived "pages_host" (ternary "::" "127.0.0.1" .Values.pages.service) -}}
{{- $hosts := .Values.pages.hosts | default list -}}
{{- if .Values.pages.service -}}
{{- $name := include "autotuner.fullname" . -}}
{{- $of := printf "%s.%s" $name .Release.Namespace -}}
{{- $hosts = concat (list $name $of (printf "%s.svc" $of) (printf "%s.svc.cluster.local" $of)) $hosts -}}
{{- end -}}
{{- $_ := set $derived "pages_hosts" $hosts -}}
{{- end -}}
{{- if .Values.leaderElection.enabled -}}
{{- $_ := set $derived "lease_name" (include "autotuner.fullname" .) -}}
{{- $_ := set $derived "lease_namespace" .Release.Namespace -}}
{{- end -}}
{{- toYaml (merge $derived .Values.config) -}}
{{- end }}

{{/* The milliseconds of a duration of Prometheus, such as 1m30s. */}}
{{- define "autotuner.milliseconds" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $number := regexFind "[1-9][0-9]*" . | default "0" | int64 -}}
{{- $unit := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- $total = add $total (mul $number (get $unit (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- $total -}}
{{- end }}

{{/* The controller's permissions in each namespace that it watches. */}}
{{- define "autotuner.rules" -}}
# Read registered jobs and patch their status annotations; create and delete trials.
{{- if has "PyTorchJob" .Values.kinds }}
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if has "TrainJob" .Values.kinds }}
- apiGroups: [trainer.kubeflow.org]
  resources: [trainjobs]
  verbs: [get, list, watch, create, patch, delete]
# Read the runtime of a TrainJob: its training container, and what happens after a failure.
- apiGroups: [trainer.kubeflow.org]
  resources: [trainingruntimes{{ if not .Values.namespaces }}, clustertrainingruntimes{{ end }}]
  verbs: [get]
{{- end }}
# Read the state of a trial's pods, and how they ended.
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
# Read the metrics that a trial prints.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# Keep the ledger of a job's finished trials.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
# What the controller tells a job's user; and why a trial's pods are not created or do not start, which stands
# in Events alone. Without `list`, hold-ups are reported without their text.
- apiGroups: [""]
  resources: [events]
  verbs: [create, list, patch]
{{- if .Values.rbac.kueueWorkloads }}
# Only its Workload says why Kueue does not admit a trial.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
{{- with .Values.rbac.extraRules }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The subject of the role bindings. */}}
{{- define "autotuner.subjects" -}}
- kind: ServiceAccount
  name: {{ include "autotuner.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
