-- Rights on what 19 made, for the users of 08: the analyst reads, and the sink reads back what it writes.
GRANT SELECT ON ${database}.ml_detected_anomalies_now TO ${analyst};
GRANT SELECT ON ${database}.campaigns_now TO ${analyst};
GRANT SELECT ON ${database}.view_form_brute_force TO ${analyst};
GRANT SELECT ON ${database}.view_ja4_rotation TO ${analyst};
GRANT SELECT ON ${database}.view_slow_requests TO ${analyst};
