"""Speaking to archives: DIMSE and DICOMweb, to allow-listed destinations and never by itself."""
