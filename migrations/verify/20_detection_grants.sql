-- expect: 5
SELECT count() FROM system.grants WHERE user_name = '${analyst}' AND database = '${database}' AND access_type = 'SELECT' AND table IN (
    'ml_detected_anomalies_now', 'campaigns_now', 'view_form_brute_force', 'view_ja4_rotation', 'view_slow_requests');
