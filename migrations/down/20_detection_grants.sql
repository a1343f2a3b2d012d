REVOKE SELECT ON ${database}.ml_detected_anomalies_now FROM ${analyst};
REVOKE SELECT ON ${database}.campaigns_now FROM ${analyst};
REVOKE SELECT ON ${database}.view_form_brute_force FROM ${analyst};
REVOKE SELECT ON ${database}.view_ja4_rotation FROM ${analyst};
REVOKE SELECT ON ${database}.view_slow_requests FROM ${analyst};
