DROP USER IF EXISTS ${analyst};
DROP USER IF EXISTS ${data_writer};
